"""The pipelines of `pipelines.py`: functions that return a training loader, with hooks that a user would write.

training.py    the module, the Trainer, the record of batches and results; `python training.py NAME` trains one
samples.py     the samples
map_style.py   map-style datasets, their transforms and collate functions
workers.py     the same in worker processes
samplers.py    samplers and batch samplers
streams.py     iterable datasets, loaders of one's own, combinations, loaders that are reloaded
libraries.py   loaders and datasets of packages
"""
