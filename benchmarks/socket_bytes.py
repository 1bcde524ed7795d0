"""Bytes that this process has sent over TCP, counted by the kernel."""

from __future__ import annotations

import contextlib
import os
import socket
import struct

_BYTES_SENT = 200  # offset of `tcpi_bytes_sent` in the `tcp_info` of Linux 4.19 and later, without headers


def sent_bytes() -> int:
    """Return the bytes that all open TCP connections of this process have sent."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                with socket.socket(fileno=os.dup(int(name))) as one:
                    information = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
                total += struct.unpack_from("Q", information, _BYTES_SENT)[0]
    return total
