"""Clock, durations, files, validation and HTTP, for every other package."""

from lightning_green.utilities.clock import Clock, SimulatedClock, SystemClock
from lightning_green.utilities.durations import format_duration, parse_duration
from lightning_green.utilities.files import atomic_file, write_json
from lightning_green.utilities.registry import Registry

__all__ = [
    "Clock",
    "Registry",
    "SimulatedClock",
    "SystemClock",
    "atomic_file",
    "format_duration",
    "parse_duration",
    "write_json",
]
