"""Sources of carbon intensity, one file each. This package contains no base classes."""
