"""Both algorithms on a GPU, through Triton. Parity is tested in its interpreter; on a GPU it is unmeasured."""
