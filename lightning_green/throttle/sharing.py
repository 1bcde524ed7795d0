"""Processes of other users on the GPUs of the job."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

from lightning_green.energy.gpus import Gpu, job_gpus, open_nvml

PROC = Path("/proc")


def describe_other_users(gpu_ids: Sequence[str] | None) -> str | None:
    """Return which GPU of the job runs a process of another user, or None.

    Processes of the user of this process count as those of the job. A process without an entry in ``/proc`` is in
    another container or hidden, so it belongs to another user. There is one exception: in a container the driver may
    report the process of the job by its number on the host. So a single unknown process counts as that of the job if
    no other process of this user is reported.

    Args:
        gpu_ids: NVML indices or UUIDs; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs if it is not set.

    Returns:
        A description such as ``"GPU 1 also runs a process of another user (PID 4242)"``; None also if the driver does
        not report processes.

    """
    nvml = open_nvml()[0] if PROC.is_dir() else None
    if nvml is None:
        return None
    try:
        for gpu in job_gpus(nvml, gpu_ids)[0]:
            others = _of_other_users(_pids(nvml, gpu))
            if others:
                noun = "a process of another user" if len(others) == 1 else "processes of other users"
                return f"GPU {gpu.index} also runs {noun} (PID {', '.join(map(str, others))})"
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()
    return None


def _pids(nvml: ModuleType, gpu: Gpu) -> list[int]:
    """Return the processes of a GPU, or none if the driver does not report them."""
    for version in ("v3", "v2"):  # drivers before 510 have only the older function
        function = getattr(nvml, f"nvmlDeviceGetComputeRunningProcesses_{version}", None)
        try:
            return [] if function is None else [process.pid for process in function(gpu.handle)]
        except nvml.NVMLError_FunctionNotFound:
            continue
        except nvml.NVMLError:
            break
    return []


def _of_other_users(pids: Sequence[int]) -> list[int]:
    users = {pid: _user_of(pid) for pid in pids}
    unknown = [pid for pid, user in users.items() if user is None]
    others = [pid for pid, user in users.items() if user is not None and user != os.getuid()]
    is_job_listed = os.getuid() in users.values()
    return sorted([*others, *unknown] if is_job_listed or len(unknown) > 1 else others)


def _user_of(pid: int) -> int | None:
    """Return the user ID of a process, or None if this process cannot see it."""
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith("Uid:")), None)
