"""Loaders, datasets and transforms of packages, a file for each; a pipeline names the packages that it needs."""
