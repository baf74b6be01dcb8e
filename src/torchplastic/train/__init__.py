"""Training and evaluation of any model on any task."""
