"""Which network on which task with which numbers: one file = one section of the paper."""
