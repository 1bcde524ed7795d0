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
_GPU_TIMEOUT_SECONDS = 65.0
"""Timeout of the routes of GPUs. A site can replace them by commands, which zeusd stops after 60 s by default, and all
requests for a GPU wait for its commands."""
_MAX_RESPONSE_BYTES = 1_000_000
_MAX_MESSAGE = 500


class ZeusdError(ThrottleError):
    """zeusd refuses a request or failed to carry it out.

    Args:
        message: Description.
        status: HTTP status.

    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


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
            ZeusdError: If zeusd refuses the request or fails.
            ThrottleError: If zeusd does not respond.

        """
        timeout = _GPU_TIMEOUT_SECONDS if route.startswith("/gpu/") else _TIMEOUT_SECONDS
        connection = _UnixConnection(self.path, timeout)
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request(method, f"{route}?{urlencode(query)}" if query else route, headers=headers)
            response = connection.getresponse()
            data = response.read(_MAX_RESPONSE_BYTES)
        except TimeoutError as error:
            raise ThrottleError(
                f"zeusd did not complete {route} within {timeout:g} s; a command of the site may still be running"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ThrottleError(
                f"zeusd does not respond at {self.path} ({type(error).__name__}); start it or set {SOCKET_VARIABLE}"
            ) from error
        finally:
            connection.close()
        if response.status >= 300:
            raise _describe_failure(route, response.status, data)
        try:
            content = json.loads(data) if data.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ThrottleError(f"zeusd responded to {route} with invalid JSON") from error
        return content if isinstance(content, dict) else {}

    def check(self, *groups: str) -> None:
        """Check that zeusd offers API groups.

        Args:
            groups: Names such as ``"gpu-control"``.

        Raises:
            ThrottleError: If zeusd does not respond, or a group is disabled.

        """
        enabled = self.call("GET", "/discover").get("enabled_api_groups")
        missing = [group for group in groups if not isinstance(enabled, list) or group not in enabled]
        if missing:
            raise ThrottleError(
                f"zeusd runs without `{'` and `'.join(missing)}`; start it with `--enable gpu-read,gpu-control`"
            )


def _describe_failure(route: str, status: int, data: bytes) -> ZeusdError:
    """Return the error of a response.

    zeusd reports ``{"error": text}`` if it refuses a request, and ``{"errors": {gpu: text}}`` if it fails on a GPU.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    errors = body.get("errors") if isinstance(body, dict) else None
    if isinstance(errors, dict):
        text = "; ".join(f"GPU {gpu}: {error}" for gpu, error in errors.items())
    elif isinstance(body, dict) and "error" in body:
        text = str(body["error"])
    else:
        text = data.decode(errors="replace")
    text = printable(text[:_MAX_MESSAGE])
    if status in (401, 403) and not isinstance(errors, dict):
        remedy = f"set {TOKEN_VARIABLE} to a token that may control GPUs"
        return ZeusdError(f"zeusd refused the request ({status}); {remedy}", status)
    if status == 403:
        return ZeusdError(
            f"zeusd lacks the permission for {route} ({text}); it has to run as root, or with a command for this "
            "operation in `--gpu-command-overrides`",
            status,
        )
    return ZeusdError(f"zeusd responded to {route} with status {status}: {text}", status)


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
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost")
        self._path, self._seconds = path, timeout

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT_SECONDS)
        self.sock.connect(self._path)
        self.sock.settimeout(self._seconds)
