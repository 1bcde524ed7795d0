"""The API server of a Kubernetes cluster, as the pods of the cluster reach it."""

from __future__ import annotations

import json
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import tenacity

from lightning_green.utilities.http.answers import retry_after

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Directory of the token, the certificates and the namespace that Kubernetes mounts into each pod."""
TOTAL_SECONDS = 60.0
"""Time after which a request that fails is not tried again."""
PAGE = 200
_CONNECT_SECONDS, _READ_SECONDS = 5.0, 10.0
_LONGEST_WAIT_SECONDS = 10.0
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MERGE = "application/merge-patch+json"
CONFLICT, MISSING = 409, 404


class KubernetesError(RuntimeError):
    """The API server gave no usable answer. The message is one clause without a token or text of the server.

    Args:
        message: The reason.
        status: HTTP status of the answer; None without an answer.
        remedy: What to do, as a sentence; empty if unknown.

    """

    def __init__(self, message: str, status: int | None = None, remedy: str = "") -> None:
        super().__init__(message)
        self.status, self.remedy = status, remedy

    @property
    def is_final(self) -> bool:
        """Whether the same request would fail later as well, until somebody changes the cluster."""
        return self.status is not None and self.status < 500 and self.status not in (CONFLICT, 429)


@dataclass(frozen=True)
class Access:
    """Address of an API server, and the credentials for it.

    Args:
        url: Address, such as ``"https://10.0.0.1:443"``.
        namespace: Namespace of this process.
        directory: Directory with ``token`` and ``ca.crt``; None for a proxy that adds the credentials.

    """

    url: str
    namespace: str
    directory: Path | None

    @classmethod
    def of_pod(cls, environment: Mapping[str, str] = os.environ, directory: Path | None = None) -> Access:
        """Return the access that Kubernetes gives to a pod.

        Args:
            environment: Environment variables of the pod.
            directory: Directory of the service account; None for that of Kubernetes.

        Raises:
            KubernetesError: If this process is not in a pod, or its pod has no service account.

        """
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise KubernetesError("this process is not in a Kubernetes pod")
        folder = SERVICE_ACCOUNT if directory is None else directory
        try:
            namespace = (folder / "namespace").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise KubernetesError(
                f"the pod has no service account in {folder}",
                MISSING,
                "Remove `automountServiceAccountToken: false`.",
            ) from None
        return cls(f"https://{f'[{host}]' if ':' in host else host}:{port}", checked(namespace), folder)

    @classmethod
    def of_proxy(cls, url: str) -> Access:
        """Return the access through ``kubectl proxy`` on this machine.

        Examples:
            >>> Access.of_proxy("http://127.0.0.1:8001").namespace
            'default'

        Raises:
            KubernetesError: If the address is not on this machine.

        """
        try:
            host = httpx.URL(url).host
        except httpx.InvalidURL:
            host = ""
        if host not in ("127.0.0.1", "::1", "localhost"):
            raise KubernetesError(f"{url} is not an address of this machine, such as http://127.0.0.1:8001")
        return cls(url.rstrip("/"), "default", None)

    def headers(self) -> dict[str, str]:
        """Return the header with the token, which is read each time: Kubernetes replaces it every hour."""
        if self.directory is None:
            return {}
        try:
            token = (self.directory / "token").read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            raise KubernetesError(f"the token in {self.directory} cannot be read", MISSING) from None
        if not token or not token.isprintable():
            raise KubernetesError(f"the token in {self.directory} is empty or damaged", MISSING)
        return {"Authorization": f"Bearer {token}"}

    def tls(self) -> ssl.SSLContext | bool:
        """Return the TLS context, which accepts the certificates of the cluster only.

        Raises:
            KubernetesError: If the certificates cannot be read.

        """
        if self.directory is None:
            return True
        try:
            return ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        except (OSError, ssl.SSLError):
            raise KubernetesError(f"the certificates in {self.directory} cannot be read", MISSING) from None


class KubernetesAPI:
    """Requests to an API server. Errors of the network and of the server are tried again for a limited time.

    Args:
        access: Address and credentials.
        total: Time in seconds after which a request that fails is not tried again.

    Raises:
        KubernetesError: If the certificates of the cluster cannot be read.

    """

    def __init__(self, access: Access, total: float = TOTAL_SECONDS) -> None:
        self.access = access
        self._total = total
        self._client = httpx.Client(
            base_url=access.url,
            verify=access.tls(),
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            follow_redirects=False,  # the token is for this server only
            trust_env=False,  # no proxy between a pod and its cluster
            headers={"User-Agent": "lightning-green", "Accept": "application/json"},
        )

    def get(self, path: str, what: str, **params: str) -> dict[str, Any]:
        """Return an object.

        Args:
            path: Path below the address of the server.
            what: The request as a verb and an object, for messages, such as ``"get the Job train"``.
            **params: Query string.

        Raises:
            KubernetesError: If there is no usable answer.

        """
        return self._request("GET", path, what, params=params)

    def items(self, path: str, what: str) -> Iterator[dict[str, Any]]:
        """Yield the objects of a list, which is requested in pages.

        Raises:
            KubernetesError: If there is no usable answer.

        """
        token = ""
        while True:
            page = self.get(path, what, limit=str(PAGE), **({"continue": token} if token else {}))
            yield from (item for item in page.get("items") or () if isinstance(item, dict))
            token = str((page.get("metadata") or {}).get("continue") or "")
            if not token:
                return

    def patch(self, path: str, what: str, change: Mapping[str, Any]) -> dict[str, Any]:
        """Change an object with a merge patch, and return it.

        Raises:
            KubernetesError: If it was not changed, or that is unknown; with status 409 if somebody else has changed it
                since the resource version in the patch.

        """
        return self._request("PATCH", path, what, change, _MERGE)

    def create(self, path: str, what: str, content: Mapping[str, Any]) -> dict[str, Any]:
        """Create an object, and return it.

        Raises:
            KubernetesError: If it was not created, or that is unknown; with status 409 if it exists.

        """
        return self._request("POST", path, what, content, "application/json")

    def _request(
        self,
        method: str,
        path: str,
        what: str,
        content: Mapping[str, Any] | None = None,
        kind: str = "",
        params: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_delay(self._total),
            wait=_wait,
            retry=tenacity.retry_if_exception(_is_temporary),
            reraise=True,
        )
        data = None if content is None else json.dumps(content).encode()
        return retrying(self._once, method, path, what, data, kind, dict(params or {}))

    def _once(
        self, method: str, path: str, what: str, data: bytes | None, kind: str, params: dict[str, str]
    ) -> dict[str, Any]:
        headers = self.access.headers() | ({"Content-Type": kind} if kind else {})
        try:
            reply = self._client.request(method, path, content=data, params=params, headers=headers)
        except httpx.HTTPError as error:
            how = "has not answered in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
            raise KubernetesError(f"the API server {how} ({type(error).__name__})") from None
        if reply.is_success:
            try:
                found = reply.json()
            except ValueError:
                found = None
            if isinstance(found, dict):
                return found
            raise KubernetesError("the API server answers without a JSON object", reply.status_code)
        raise _error(reply, what)


class _TemporaryError(KubernetesError):
    """An error that may be over in seconds, with the wait that the server asks for."""

    def __init__(self, message: str, status: int, wait: float | None) -> None:
        super().__init__(message, status)
        self.wait = wait


def _error(reply: httpx.Response, what: str) -> KubernetesError:
    status = reply.status_code
    if status == 429 or status >= 500:
        wait = retry_after(reply.headers.get("retry-after"), datetime.now(timezone.utc))
        return _TemporaryError(
            f"the API server reports {'too many requests' if status == 429 else 'an error'} ({status})",
            status,
            None if wait is None else wait.total_seconds(),
        )
    if status == 401:
        return KubernetesError("the API server does not accept the token of the service account (401)", status)
    if status == 403:
        message = f"the service account may not {what} (403)"
        return KubernetesError(
            message, status, "Apply the Role in the manifests of `lightning-green kubernetes job` or `waker-manifest`."
        )
    if status == MISSING:
        return KubernetesError(f"the API server cannot {what}: it does not exist (404)", status)
    if status == CONFLICT:
        return KubernetesError(f"the API server did not {what}: it has changed at the same time (409)", status)
    return KubernetesError(f"the API server does not {what} ({status})", status)


def _is_temporary(error: BaseException) -> bool:
    return isinstance(error, KubernetesError) and not error.is_final and error.status != CONFLICT


def _wait(state: tenacity.RetryCallState) -> float:
    """Return the wait that the server asks for, at most ten seconds, or an exponential one."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, _TemporaryError) and error.wait is not None:
        return min(error.wait, _LONGEST_WAIT_SECONDS)
    return float(min(0.25 * 2.0**state.attempt_number, _LONGEST_WAIT_SECONDS))


def checked(name: str) -> str:
    """Return a name of Kubernetes, which becomes a part of a path.

    Raises:
        KubernetesError: If it is not a name of Kubernetes.

    """
    if _NAME.fullmatch(name) is None:
        raise KubernetesError(f"{name[:80]!r} is not a name of Kubernetes", MISSING)
    return name
