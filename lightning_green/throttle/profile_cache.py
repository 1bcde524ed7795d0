"""Measured profiles on disk, for later runs of the same model on the same device."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_green.throttle.profile import ThrottleProfile
from lightning_green.utilities.files import cache_directory, remove_temporary_files, write_json
from lightning_green.utilities.reading import UnreadableFileError, read_json
from lightning_green.utilities.trusted_files import make_private

if TYPE_CHECKING:
    from torch.nn import Module

log = logging.getLogger(__name__)

_MOST_BYTES = 1_000_000


class ProfileCache:
    """Load and save the profile of one model on one set of devices.

    Args:
        devices: Descriptions of the devices.
        model: Description of the model and its data; see ``describe_model``.
        names: Names of the levels below full power.

    """

    def __init__(self, devices: Sequence[str], model: str, names: Sequence[str]) -> None:
        key = json.dumps([sorted(devices), model, sorted(names)])
        self.path = cache_directory() / "throttle" / f"{hashlib.sha256(key.encode()).hexdigest()[:20]}.json"

    def load(self, profile: ThrottleProfile) -> bool:
        """Load the operating points of an earlier run and return whether there are any."""
        try:
            return profile.load(read_json(self.path, own=True))
        except (OSError, UnreadableFileError):  # no file, or an unreadable one: the levels are measured
            return False

    def save(self, profile: ThrottleProfile) -> None:
        """Save the operating points. A failure logs a warning."""
        try:
            make_private(self.path.parent)
            remove_temporary_files(self.path.parent)
            write_json(self.path, profile.state(), private=True)
        except OSError as error:
            log.warning(
                "The measured throttle levels could not be saved (%s). The next run measures them again.", error
            )


def describe_model(module: Module) -> str:
    """Return a description of a model for the cache: its class and a hash of the names and shapes of its parameters."""
    shapes = [(name, list(parameter.shape)) for name, parameter in module.named_parameters()]
    return f"{type(module).__qualname__} {hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]}"
