"""The pipelines of `pipelines.py`: functions that return a training loader, with hooks that a user would write.

training.py    the module, the Trainer, the record of batches and results; `python training.py NAME` trains one
samples.py     the samples, and the registry
generators.py  map-style datasets, transforms and collate functions with random generators
kept_data.py   map-style datasets that keep counts, indices, caches, buffers and files
workers.py     the same in worker processes
samplers.py    samplers and batch samplers
streams.py     iterable datasets, loaders of one's own, combinations, loaders that are reloaded
own_batches.py loaders with an `__iter__` of their own
libraries/     loaders, datasets and transforms of packages
"""
