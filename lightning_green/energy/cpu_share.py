"""The job's share of the energy of a machine's CPU and memory."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

import filelock
import psutil

from lightning_green.energy.meter import Component, Quality
from lightning_green.utilities.files import cache_directory

Share = Literal["job", "node"]
"""``"job"``: the job's share of the energy of CPU and memory. ``"node"``: all of it."""

_CGROUPS = "/sys/fs/cgroup"
_SHORTEST = 0.5  # seconds; the machine's busy time has a resolution of 10 ms per core
_SHARED: tuple[Component, ...] = ("cpu", "ram")


class EnergyShare:
    """Part of the energy of CPU and memory that belongs to the job.

    The CPU's energy of an interval is multiplied by the job's CPU time over the busy time of the machine. The energy of
    the idle machine is divided in the same proportion, so a job that runs alone has nearly all of it. The energy of the
    memory is multiplied by the job's resident memory over the size of the memory. The quality is ``"modelled"``.

    The job is its cgroup (version 2), if it has one of its own: a container, a service, or a SLURM job. Otherwise it is
    this process with its child processes, and under torchrun all processes of the node.

    Args:
        share: ``"job"`` or ``"node"``. With ``"node"``, energy and quality do not change, and a lock file in the cache
            directory detects a second run on the machine that counts all energy too.
        cgroups: Mount point of the cgroups.
        claims_node: Whether a second run is detected.

    Attributes:
        problem: Description of a second run, or None.

    Raises:
        ValueError: If ``share`` is neither ``"job"`` nor ``"node"``.

    """

    def __init__(self, share: Share, cgroups: str | Path = _CGROUPS, claims_node: bool = True) -> None:
        self.share, self._claims_node = check_share(share), claims_node
        self.problem: str | None = None
        self.cgroup = own_cgroup(Path(cgroups)) if share == "job" else None
        self._lock: filelock.FileLock | None = None
        self._cpu = self._ram = 1.0
        self._last = (time.monotonic(), 0.0, busy_seconds())

    def start(self) -> None:
        """Start the first interval; with ``"node"``, take the lock."""
        if self.share == "job":
            self._last = (time.monotonic(), self._own_seconds(), busy_seconds())
            self.ram()
        elif self._claims_node:
            self._claim_node()

    def of(self, joules: Mapping[Component, float]) -> dict[Component, float]:
        """Return the job's part of the energy since the previous call, in J."""
        if self.share == "node":
            return dict(joules)
        shares = {"cpu": self.cpu(), "ram": self.ram()} if set(joules) & set(_SHARED) else {}
        return {name: value * shares.get(name, 1.0) for name, value in joules.items()}

    def quality(self, component: Component, quality: Quality) -> Quality:
        """Return the quality of the job's part."""
        return "modelled" if self.share == "job" and component in _SHARED and quality == "measured" else quality

    def cpu(self) -> float:
        """Return the job's share of the CPU since the last interval of at least half a second, in [0, 1]."""
        now = time.monotonic()
        at, own_before, busy_before = self._last
        if now - at < _SHORTEST:
            return self._cpu
        try:
            own, busy = self._own_seconds(), busy_seconds()
        except (OSError, ValueError, KeyError, psutil.Error):  # the share of the previous interval
            return self._cpu
        if busy > busy_before:
            self._cpu = min(1.0, max(0.0, own - own_before) / (busy - busy_before))
        self._last = (now, own, busy)
        return self._cpu

    def ram(self) -> float:
        """Return the job's share of the memory, in [0, 1]."""
        try:
            self._ram = min(1.0, self._own_bytes() / psutil.virtual_memory().total)
        except (OSError, ValueError, KeyError, psutil.Error):  # the share of the previous interval
            return self._ram
        return self._ram

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _own_seconds(self) -> float:
        """Return the CPU time of the job in s."""
        if self.cgroup is not None:
            fields = dict(line.split() for line in (self.cgroup / "cpu.stat").read_text(encoding="ascii").splitlines())
            return int(fields["usage_usec"]) / 1e6
        # User, system, and both of the child processes that have ended.
        return _sum_over_processes(lambda process: float(sum(process.cpu_times()[:4])))

    def _own_bytes(self) -> float:
        """Return the resident memory of the job."""
        if self.cgroup is not None and (self.cgroup / "memory.current").exists():
            fields = dict(
                line.split() for line in (self.cgroup / "memory.stat").read_text(encoding="ascii").splitlines()
            )
            # As Kubernetes defines a working set: without files that the kernel can drop at any time.
            current = int((self.cgroup / "memory.current").read_text(encoding="ascii"))
            return max(0, current - int(fields.get("inactive_file", 0)))
        return _sum_over_processes(lambda process: float(process.memory_info().rss))

    def _claim_node(self) -> None:
        folder = cache_directory() / "energy"  # which several machines may share
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(folder / f"{socket.gethostname()}.lock", timeout=0)
            lock.acquire()
            self._lock = lock
        except filelock.Timeout:
            self.problem = (
                'Another run on this machine also counts the energy of the whole machine (share="node"), so the sum of '
                'both runs counts it twice. Use share="job" in both.'
            )
        except OSError:  # a read-only home directory: nothing can be detected
            return


def check_share(share: object) -> Share:
    """Return ``share`` if it is valid.

    Raises:
        ValueError: If it is neither ``"job"`` nor ``"node"``.

    """
    if share not in get_args(Share):
        raise ValueError(f'`share` should be "job" or "node", got {share!r}.')
    return share  # type: ignore[return-value]


def busy_seconds() -> float:
    """Return the time in s that all CPUs of the machine together were not idle."""
    times = psutil.cpu_times()
    names = ("user", "nice", "system", "irq", "softirq")  # not the time that a hypervisor gave to other machines
    return float(sum(getattr(times, name, 0.0) for name in names))


def own_cgroup(root: Path, process: Path = Path("/proc/self/cgroup")) -> Path | None:
    """Return the directory of the job's cgroup (version 2), or None if it has none of its own.

    Args:
        root: Mount point of the cgroups.
        process: File with the cgroup of this process.

    """
    try:
        lines = process.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return None
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    # Each task of a SLURM job has a cgroup. Those of one node belong to the same training.
    path = re.sub(r"(/job_\d+)/.*", r"\1", path)
    if path.startswith("/user.slice/") and "/run-" not in path:
        return None  # everything that the user runs, except for `systemd-run`
    folder = root / path.lstrip("/")
    # The root cgroup, which contains the whole machine, has no `cgroup.type`; that of a container has.
    return folder if (folder / "cgroup.type").exists() and (folder / "cpu.stat").exists() else None


def _sum_over_processes(measure: Callable[[psutil.Process], float]) -> float:
    """Sum over this process and its child processes; under torchrun, over all that it has started on this node."""
    first = psutil.Process(os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None)
    total = 0.0
    for process in [first, *first.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):  # it has ended
            total += measure(process)
    return total
