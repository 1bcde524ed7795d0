"""Actuators that are files under /sys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.errors import ThrottleError


class FileActuator(Actuator):
    """Base of the actuators whose state is the text of files: ``{path: text}``."""

    remedy = "run as root, or have an administrator make it writable"

    @override
    def _write(self, state: dict[str, Any]) -> None:
        for path, text in state.items():
            try:
                Path(path).write_text(f"{text}\n", encoding="ascii")
            except PermissionError as error:  # noqa: PERF203  (a handful of files)
                raise ThrottleError(f"{path} may not be written; {self.remedy}") from error


def read_text(path: Path) -> str:
    """Return the text of a small file, without its end of line."""
    return path.read_text(encoding="ascii").strip()
