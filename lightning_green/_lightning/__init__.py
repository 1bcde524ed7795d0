"""Every private attribute and patched method of Lightning that the suite relies on, and nothing else."""
