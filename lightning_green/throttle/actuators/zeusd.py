"""Client of zeusd, a daemon that changes GPU settings for users without root."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from lightning_green.energy.gpus import job_gpus, open_nvml
from lightning_green.throttle.errors import ThrottleError
from lightning_green.utilities.text import printable

DEFAULT_SOCKET = "/run/zeusd/zeusd.sock"
SOCKET_VARIABLE = "ZEUSD_SOCK_PATH"
TOKEN_VARIABLE = "ZEUSD_TOKEN"  # noqa: S105  (the name of a variable)
_TIMEOUT_SECONDS = 5.0
_MAX_RESPONSE_BYTES = 1_000_000


class Zeusd:
    """Send HTTP requests to zeusd over its Unix socket.

    Args:
        path: Path of the socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock`` if it is not set.

    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET

    def call(self, method: str, route: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a request and return the JSON object of the response; an empty response is an empty dict.

        Raises:
            ThrottleError: If zeusd does not respond or refuses the request.

        """
        connection = _UnixConnection(self.path)
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request(method, f"{route}?{urlencode(query or {})}", headers=headers)
            response = connection.getresponse()
            data = response.read(_MAX_RESPONSE_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ThrottleError(
                f"zeusd does not respond at {self.path} ({type(error).__name__}); start it or set {SOCKET_VARIABLE}"
            ) from error
        finally:
            connection.close()
        if response.status in (401, 403):
            raise ThrottleError(
                f"zeusd refused the request ({response.status}); set {TOKEN_VARIABLE} to a token that may control GPUs"
            )
        if response.status >= 300:
            body = printable(data[:200].decode(errors="replace"))
            raise ThrottleError(f"zeusd responded to {route} with status {response.status}: {body}")
        try:
            content = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ThrottleError(f"zeusd responded to {route} with invalid JSON") from error
        return content if isinstance(content, dict) else {}

    def check(self) -> None:
        """Check that zeusd can change GPU settings.

        Raises:
            ThrottleError: If zeusd does not respond, or its API group ``gpu-control`` is disabled.

        """
        groups = self.call("GET", "/discover").get("enabled_api_groups", [])
        if "gpu-control" not in groups:
            raise ThrottleError("zeusd runs without `gpu-control`; start it with `--enable gpu-control`")


def zeusd_gpus(gpu_ids: Sequence[int] | None, names: Sequence[str] | None = None) -> list[int]:
    """Return the physical indices of the GPUs of the job.

    Args:
        gpu_ids: Indices that the user named, which are returned unchanged; None to find them.
        names: NVML indices or UUIDs of the GPUs of the job; None for ``CUDA_VISIBLE_DEVICES``.

    Raises:
        ThrottleError: If the GPUs cannot be found, or the job has only a MIG slice.

    """
    if gpu_ids is not None:
        return list(gpu_ids)
    nvml, reason = open_nvml()
    if nvml is None:
        raise ThrottleError(f"the GPUs of the job cannot be found ({reason}); set `gpu_ids`")
    try:
        gpus, notes = job_gpus(nvml, names)
    except nvml.NVMLError as error:
        raise ThrottleError(f"the GPUs of the job cannot be found ({error}); set `gpu_ids`") from error
    finally:
        nvml.nvmlShutdown()
    if not gpus or any(gpu.share < 1.0 for gpu in gpus):
        raise ThrottleError(notes[0] if notes else "the job has no whole GPU")
    return [gpu.index for gpu in gpus]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(self._path)
