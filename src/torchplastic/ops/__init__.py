"""Running a plasticity rule through time, on tensors alone."""
