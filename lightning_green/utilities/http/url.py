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
    if isinstance(url, str) and re.match(r"https?://[^/?#@]+([/?#]|$)", url):
        return url
    if isinstance(url, str) and "@" in url:
        instead = f"; set {variable} or use a file instead" if variable else ""
        raise ValueError(f"`url` should not contain a user name or a password{instead}.")
    raise ValueError(f"`url` should start with http:// or https:// and a host, got {url!r}.")
