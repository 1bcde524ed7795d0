"""How the processes of a run work together: control group of the ranks, sharded state."""
