"""The job's NVIDIA cards, as the actuators need them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from lightning_green.energy.gpus import Gpu, job_gpus, open_nvml, say_nvml
from lightning_green.throttle.errors import ThrottleError

REMEDY = (
    "run as root (in a container with `--cap-add SYS_ADMIN`), or have an administrator start zeusd, which sets it for "
    "users"
)


def card_models(gpu_ids: Sequence[str] | None) -> str:
    """Return the models of the job's cards.

    Raises:
        ThrottleError: If they cannot be told.

    """
    with cards(gpu_ids) as (_, found):
        return ", ".join(gpu.model for gpu in found)


@contextmanager
def cards(gpu_ids: Sequence[str] | None) -> Iterator[tuple[ModuleType, list[Gpu]]]:
    """Open NVML and yield it with the job's cards; every error of NVML becomes a :class:`ThrottleError`.

    A card of which the job has a MIG instance only is shared with others and not touched.
    """
    nvml, why = open_nvml()
    if nvml is None:
        raise ThrottleError(f"there is no NVIDIA driver ({why})")
    try:
        found, notes = job_gpus(nvml, gpu_ids)
        if not found:
            raise ThrottleError(notes[0] if notes else "the job has no GPU")
        if any(gpu.share < 1.0 for gpu in found):
            raise ThrottleError("the job has a MIG instance only, and the card's setting would slow the others down")
        yield nvml, found
    except nvml.NVMLError_NoPermission as error:
        raise ThrottleError(f"{say_nvml(error)}; {REMEDY}") from error
    except nvml.NVMLError as error:
        raise ThrottleError(say_nvml(error)) from error
    finally:
        nvml.nvmlShutdown()
