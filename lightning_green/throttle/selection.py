"""Automatic selection of an actuator."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from lightning_green.planning.job import Level
from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.registry import ACTUATORS, actuator_class

log = logging.getLogger(__name__)


def select_actuator(on_gpu: bool, gpus: Sequence[str] | None, stated: Sequence[Level] = ()) -> Actuator | None:
    """Return the first registered actuator that this process may use, or None.

    Args:
        on_gpu: Whether the training runs on a GPU. If not, CPU actuators are tried.
        gpus: NVML indices or UUIDs of the GPUs of the job on this node; None for ``CUDA_VISIBLE_DEVICES``.
        stated: Levels that the user states; actuators that cannot set a fraction of power or speed are skipped then.

    """
    for cls in _candidates("gpu" if on_gpu else "cpu"):
        if stated and cls.scale is None:
            continue
        actuator = cls()
        actuator.quiet = True
        actuator.prepare(gpus, stated)
        if len(actuator.levels()) > 1:
            return actuator
    return None


def _candidates(device: str) -> Iterator[type[Actuator]]:
    for name in ACTUATORS:
        try:
            cls = actuator_class(name)
        except (ImportError, AttributeError, TypeError) as error:
            log.warning("The actuator %r is skipped, because it cannot be loaded: %s", name, error)
            continue
        if cls.auto_device == device:
            yield cls
