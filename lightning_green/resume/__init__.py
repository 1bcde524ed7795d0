"""The exact training state of a fit: loaders, random states, checkpoints, fingerprints."""
