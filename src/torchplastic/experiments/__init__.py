"""The experiments of the papers: a network, a task and settings in one file each, and the code that runs them."""
