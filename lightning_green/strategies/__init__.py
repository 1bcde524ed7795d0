"""Communication of the ranks of a training, and sharded model state."""
