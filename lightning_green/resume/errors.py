"""The error of a checkpoint that does not fit the training."""


class InexactStateError(RuntimeError):
    """A checkpoint does not belong to this model, data or number of processes."""
