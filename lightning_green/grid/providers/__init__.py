"""Sources of carbon intensity, one file each."""
