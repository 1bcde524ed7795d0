"""Addresses of services."""

from __future__ import annotations

import re


def check_url(url: str, variable: str = "") -> str:
    """Return ``url`` if it is an HTTP address without credentials. Addresses appear in specs, ledgers and messages.

    Args:
        url: The address.
        variable: Environment variable that contains the credential of the service; empty if there is none.

    Raises:
        ValueError: If ``url`` is anything else. The message does not contain the credentials.

    Examples:
        >>> check_url("http://prometheus:9090")
        'http://prometheus:9090'

    """
    instead = f"; set {variable} or use a file instead" if variable else ""
    if isinstance(url, str) and "@" in re.split(r"[/?#]", url.split("//", 1)[-1], maxsplit=1)[0]:
        raise ValueError(f"`url` should not contain a user name or a password{instead}.")
    if not isinstance(url, str) or not url.startswith(("http://", "https://")):
        raise ValueError(f"`url` should start with http:// or https://, got {url!r}.")
    return url
