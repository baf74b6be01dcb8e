"""The tasks: they make episodes as tensors and know no network."""
