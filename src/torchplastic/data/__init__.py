"""Pictures from files, as tensors, split into those to train on and those for validation."""
