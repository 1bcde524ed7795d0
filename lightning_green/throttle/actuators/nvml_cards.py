"""Access to the NVIDIA GPUs of the job."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from lightning_green.energy.gpus import Gpu, describe_nvml_error, job_gpus, open_nvml
from lightning_green.throttle.errors import ThrottleError

REMEDY = (
    "run as root (in a container with `--cap-add SYS_ADMIN`), or ask an administrator to start zeusd, which changes "
    "GPU settings for other users"
)


_SYS_ADMIN = 21  # bit of CAP_SYS_ADMIN


def may_change_gpus(status: Path = Path("/proc/self/status")) -> bool:
    """Return whether this process has the capability ``SYS_ADMIN``, which the driver requires for settings.

    Args:
        status: The file with the capabilities of the process.

    """
    try:
        match = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(encoding="ascii"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return os.geteuid() == 0
    return bool(match is not None and int(match[1], 16) >> _SYS_ADMIN & 1)


@contextmanager
def open_cards(gpu_ids: Sequence[str] | None) -> Iterator[tuple[ModuleType, list[Gpu]]]:
    """Open NVML for the duration of the block and yield it with the GPUs of the job.

    Args:
        gpu_ids: NVML indices or UUIDs; None for ``CUDA_VISIBLE_DEVICES``, or all GPUs if it is not set.

    Raises:
        ThrottleError: If NVML fails, the job has no GPU, or it has only a MIG slice, because a setting of the GPU would
            slow down the other users of that GPU.

    """
    nvml, reason = open_nvml()
    if nvml is None:
        raise ThrottleError(f"there is no NVIDIA driver ({reason})")
    try:
        gpus, notes = job_gpus(nvml, gpu_ids)
        if not gpus:
            raise ThrottleError(notes[0] if notes else "the job has no GPU")
        if any(gpu.share < 1.0 for gpu in gpus):
            raise ThrottleError(
                "the job has a MIG slice of a shared GPU, and a setting would slow down its other users"
            )
        yield nvml, gpus
    except nvml.NVMLError_NoPermission as error:
        raise ThrottleError(f"{describe_nvml_error(error)}; {REMEDY}") from error
    except nvml.NVMLError as error:
        raise ThrottleError(describe_nvml_error(error)) from error
    finally:
        nvml.nvmlShutdown()
