"""How throttling fails."""


class ThrottleError(Exception):
    """A device cannot be throttled: why, and what would help."""
