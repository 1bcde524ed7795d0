"""An object of a data pipeline that keeps values."""

import functools


class Keeper:
    """An object that keeps values; ``use`` changes one and returns what depends on it."""

    def __init__(self, use, **values):
        self.__dict__.update(values)
        self.use = functools.partial(use)

    def __call__(self):
        return self.use(self)


def count(one):
    one.count = getattr(one, "count", 0) + 1
    return one.count


class Sample:
    """An object that is no plain data."""
