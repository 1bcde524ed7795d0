"""Carbon intensity of the grid: the signals, from a constant to the live services."""
