"""Selection of modules and parameters by name patterns."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase


def matching(name: str, patterns: Sequence[str], candidates: Sequence[str]) -> set[str]:
    """Return the candidates that at least one pattern matches.

    A pattern is the candidate's full name, a module that contains it, or a shell pattern.

    Args:
        name: The argument that holds the patterns, for the message.
        patterns: Patterns such as ``"encoder"`` or ``"encoder.*.weight"``.
        candidates: Dotted names.

    Raises:
        ValueError: If a pattern matches nothing.

    Examples:
        >>> sorted(matching("exclude", ["encoder", "*.bias"], ["encoder.weight", "head.weight", "head.bias"]))
        ['encoder.weight', 'head.bias']

    """
    found: set[str] = set()
    for pattern in patterns:
        hits = {c for c in candidates if c.startswith(f"{pattern}.") or fnmatchcase(c, pattern)}
        if not hits:
            some = ", ".join(list(candidates)[:8]) + (", ..." if len(candidates) > 8 else "")
            raise ValueError(f"`{name}` should match something, but {pattern!r} matches none of: {some or 'nothing'}.")
        found |= hits
    return found
