"""A client for zeusd, the daemon that sets GPU power for users without root."""

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

DEFAULT_SOCKET = "/run/zeusd/zeusd.sock"
SOCKET_VARIABLE = "ZEUSD_SOCK_PATH"
TOKEN_VARIABLE = "ZEUSD_TOKEN"  # noqa: S105  (the name of a variable)
_SECONDS = 5.0
_LARGEST_ANSWER = 1_000_000


class Zeusd:
    """HTTP over zeusd's Unix socket (its ``docs/zeusd/api.md``).

    Args:
        path: Path of the socket; None for ``ZEUSD_SOCK_PATH``, or ``/run/zeusd/zeusd.sock``.

    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path or os.environ.get(SOCKET_VARIABLE) or DEFAULT_SOCKET

    def call(self, method: str, route: str, query: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the answer of ``route``; an empty one is an empty dict.

        Raises:
            ThrottleError: If zeusd does not answer, or refuses.

        """
        connection = _UnixConnection(self.path)
        token = os.environ.get(TOKEN_VARIABLE, "").strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request(method, f"{route}?{urlencode(query or {})}", headers=headers)
            reply = connection.getresponse()
            data = reply.read(_LARGEST_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            raise ThrottleError(
                f"zeusd does not answer at {self.path} ({type(error).__name__}); start it, or set {SOCKET_VARIABLE}"
            ) from error
        finally:
            connection.close()
        if reply.status in (401, 403):
            raise ThrottleError(f"zeusd refuses ({reply.status}); set {TOKEN_VARIABLE} to a token that may set GPUs")
        if reply.status >= 300:
            raise ThrottleError(f"zeusd answers {reply.status} to {route}: {data[:200].decode(errors='replace')}")
        try:
            answer = json.loads(data) if data.strip() else {}
        except ValueError as error:
            raise ThrottleError(f"zeusd answers {route} with something that is not JSON") from error
        return answer if isinstance(answer, dict) else {}

    def check(self) -> None:
        """Raise where this daemon does not let us set anything.

        Raises:
            ThrottleError: If it is not there, or its group ``gpu-control`` is off.

        """
        groups = self.call("GET", "/discover").get("enabled_api_groups", [])
        if "gpu-control" not in groups:
            raise ThrottleError("zeusd runs without `gpu-control`; have it started with `--enable gpu-control`")


def zeusd_gpus(gpu_ids: Sequence[int] | None, names: Sequence[str] | None = None) -> list[int]:
    """Return the physical indices of the job's cards.

    Args:
        gpu_ids: What the user gave.
        names: The cards that the job uses, as NVML indices or UUIDs; None for those of ``CUDA_VISIBLE_DEVICES``.

    Raises:
        ThrottleError: If they cannot be told, or the job has a part of a card only.

    """
    if gpu_ids is not None:
        return list(gpu_ids)
    nvml, why = open_nvml()
    if nvml is None:
        raise ThrottleError(f"the job's GPUs cannot be told ({why}); give `gpu_ids`")
    try:
        gpus, notes = job_gpus(nvml, names)
    except nvml.NVMLError as error:
        raise ThrottleError(f"the job's GPUs cannot be told ({error}); give `gpu_ids`") from error
    finally:
        nvml.nvmlShutdown()
    if not gpus or any(gpu.share < 1.0 for gpu in gpus):
        raise ThrottleError(notes[0] if notes else "the job has no GPU of its own")
    return [gpu.index for gpu in gpus]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(self._path)
