"""Other processes of this machine, as the system describes them."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

_GONE = "ZX"
_STOPPED = "T"  # not "t": a debugger has stopped it


@dataclass(frozen=True)
class ProcessId:
    """A process of a machine. A later process with the same number has another start time.

    Args:
        host: Name of the machine, with its namespace of process numbers.
        pid: Process number.
        started: Start time in clock ticks since the boot; empty where the system does not show it.

    """

    host: str
    pid: int
    started: str

    @classmethod
    def of(cls, pid: int) -> ProcessId:
        """Return a process of this machine by its number."""
        found = _stat(pid)
        return cls(host_name(), pid, "" if found is None else found[1])

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition(' ')[0]}"

    @property
    def is_local(self) -> bool:
        """Whether it is a process of this machine."""
        return self.host == host_name()

    @property
    def is_gone(self) -> bool | None:
        """Whether it has ended; None if that cannot be seen from here."""
        if not self.is_local or not self.started:
            return None
        found = _stat(self.pid)
        return found is None or found[1] != self.started or found[0] in _GONE

    @property
    def is_stopped(self) -> bool:
        """Whether it is known to be stopped, for example by SIGSTOP."""
        found = _stat(self.pid) if self.is_local and self.started else None
        return found is not None and found[1] == self.started and found[0] in _STOPPED


def host_name() -> str:
    """Return the name of this machine and of its namespace of process numbers, which containers may have."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()} {namespace}"


def boot_id() -> str:
    """Return an identifier of the running kernel, which all containers of a machine share; empty if there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def own_age() -> float | None:
    """Return the seconds since this process started; None if that is unknown."""
    found = _stat(os.getpid())
    try:
        uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    except (OSError, ValueError):
        return None
    return None if found is None else max(0.0, uptime - float(found[1]) / os.sysconf("SC_CLK_TCK"))


def _stat(pid: int) -> tuple[str, str] | None:
    """Return the state letter and the start time of a process; None if there is none or no ``/proc``."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], fields[19]


def catches(pid: int, number: int) -> bool:
    """Return whether a process has a handler for a signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
        caught = next(line.split()[1] for line in lines if line.startswith("SigCgt:"))
    except (OSError, StopIteration):
        return False
    return bool(int(caught, 16) >> (number - 1) & 1)
