"""Errors of the throttle."""


class ThrottleError(Exception):
    """A device cannot be throttled. The message contains the cause and, where there is one, the remedy."""
