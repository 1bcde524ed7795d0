"""Base class of the actuators that set files under ``/sys``."""

from __future__ import annotations

import os
import re
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from typing_extensions import override

from lightning_green.throttle.actuator import Actuator
from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.sysfs import describe_refusal, read_text, write_texts

_TEXT = re.compile(r"[A-Za-z0-9_-]{1,32}")
"""The text of a setting: the name of a governor, or a number."""


class FileActuator(Actuator):
    """Base class of the CPU actuators whose state is the text of files: ``{path: text}``.

    A state may come from a journal, which is untrusted input. So the state does not decide which files are written:
    ``write_state`` refuses a path that ``files`` does not return, and an actuator from a journal uses the directory
    of the kernel, whatever the journal contains.
    """

    auto_device: ClassVar[Literal["cpu", "gpu"] | None] = "cpu"

    @abstractmethod
    def files(self) -> Sequence[Path]:
        """Return the files of the device.

        Raises:
            ThrottleError: If there are none.
            OSError: If they cannot be found.

        """

    @classmethod
    @override
    def from_journal(cls, arguments: dict[str, Any]) -> Actuator:
        return cls()

    @override
    def read_state(self) -> dict[str, Any]:
        return {str(path): read_text(path) for path in self.files()}

    @override
    def write_state(self, state: dict[str, Any]) -> None:
        own = {str(path) for path in self.files()}
        for path, text in state.items():
            if path not in own:
                raise ThrottleError(f"{path} is not a file of this device")
            if not isinstance(text, (str, int)) or not _TEXT.fullmatch(str(text)):
                raise ThrottleError(f"{text!r} is not a setting of this device")
        write_texts(state)

    @override
    def find_obstacle(self, state: dict[str, Any]) -> str | None:
        refused = next((path for path in state if not os.access(path, os.W_OK)), None)
        return None if refused is None else describe_refusal(refused)
