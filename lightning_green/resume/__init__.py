"""The exact training state: loaders, random states, checkpoints, fingerprints."""
