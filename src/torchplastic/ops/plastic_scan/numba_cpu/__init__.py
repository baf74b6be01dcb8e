"""Both algorithms on a CPU, compiled by numba."""
