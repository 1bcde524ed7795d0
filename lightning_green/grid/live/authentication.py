"""How a service is authenticated against. Secrets are read when they are needed and never stored in a spec."""

from __future__ import annotations

import os

from typing_extensions import override

from lightning_green.utilities.http.secret import Secret, read_secret
from lightning_green.utilities.http.transport import Transport


class Authentication:
    """No authentication, and the base class of every other kind.

    Attributes:
        renewable: Whether a request that was refused is repeated once with renewed headers.

    """

    renewable = False

    def credential(self) -> Secret | None:
        """Return the credential; None if none is needed.

        Raises:
            RefusedError: If it is missing.

        """
        return None

    def headers(self, transport: Transport, *, renew: bool = False) -> dict[str, str]:
        """Return the headers that carry the credential.

        Args:
            transport: For services that exchange the credential for a token.
            renew: Whether the previous headers were refused.

        Raises:
            ServiceError: If there are none.

        """
        return {}

    def hint(self) -> str:
        """Return the likely reason of a 401 or 403 as a clause for the message; empty if unknown."""
        return ""


class TokenAuthentication(Authentication):
    """A token in one header.

    Args:
        variable: Environment variable that contains the token.
        file: File that contains the token; None for the environment.
        header: Name of the header.
        prefix: Text before the token.
        required: Whether a request without a token is pointless. If not, an unset variable means no header.
        reason: Likely reason of a 401 or 403 to a request with a token; None for a wrong or expired token.

    Examples:
        ```python
        TokenAuthentication("MY_UTILITY_TOKEN")  # sends "Authorization: Bearer <token>"
        ```

    """

    def __init__(
        self,
        variable: str,
        file: str | None = None,
        header: str = "Authorization",
        prefix: str = "Bearer ",
        required: bool = True,
        reason: str | None = None,
    ) -> None:
        self.variable = variable
        self.file = file
        self.header = header
        self.prefix = prefix
        self.required = required
        self.reason = reason or f"the token in {file or variable} is wrong or has expired"

    @override
    def credential(self) -> Secret | None:
        if not self.required and self.file is None and not os.environ.get(self.variable):
            return None
        return read_secret(self.variable, self.file)

    @override
    def headers(self, transport: Transport, *, renew: bool = False) -> dict[str, str]:
        secret = self.credential()
        return {} if secret is None else {self.header: self.prefix + secret.reveal()}

    @override
    def hint(self) -> str:
        return f"{self.variable} should be set" if self.credential() is None else self.reason
