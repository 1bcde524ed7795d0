"""Private attributes and patched methods of Lightning, and nothing else.

Written against Lightning 2.6.6, which documents none of them. ``tests/_lightning`` asserts that each still exists. One
module covers one part of Lightning: loops, training steps, loaders, checkpoints, loggers, metrics, tuners, callbacks,
signals, processes and precision.
"""
