"""The version of this package."""

from __future__ import annotations

import sys


def package_version() -> str:
    """Return the version; the package itself is always imported before its modules."""
    return str(sys.modules[__name__.partition(".")[0]].__version__)
