"""Base class of the actuators that set files under ``/sys``."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.sysfs import write_texts


class FileActuator(Actuator):
    """Base class of the CPU actuators whose state is the text of files: ``{path: text}``."""

    auto_device: ClassVar[Literal["cpu", "gpu"] | None] = "cpu"

    @override
    def write_state(self, state: dict[str, Any]) -> None:
        write_texts(state)
