"""Base class of the energy meters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Component = Literal["cpu", "gpu", "ram", "other"]
"""Part of a node whose energy is counted separately."""
COMPONENTS: tuple[Component, ...] = ("cpu", "gpu", "ram", "other")

Quality = Literal["measured", "modelled", "unavailable"]
"""Origin of an energy value: a sensor, a model, or none."""


class Energy(NamedTuple):
    """Cumulative energy of one component since the meter started.

    Attributes:
        joules: Energy in J; never decreases.
        quality: ``"measured"`` by a sensor, ``"modelled"`` in whole or in part, or ``"unavailable"``.

    """

    joules: float
    quality: Quality


class Meter(ABC):
    """Measure the cumulative energy of the devices that a job uses on this node.

    ``read`` is cumulative since ``start``, monotonic and thread-safe, and returns without waiting. It never
    raises after the start: a component whose sensor fails keeps its last value, and ``problem`` contains the
    reason. A training does not depend on this: it calls its meter in a thread of its own (``GuardedMeter``).

    To add a meter, implement ``start``, ``read`` and ``close``. To select it by name, register the class
    in the entry point group ``lightning_green.energy``; it is created without arguments.

    Attributes:
        name: Short name for messages and the ledger.
        problem: Description of the last failure, or None; one line per failure.

    Examples:
        ```python
        class RackMeter(Meter):
            name = "rack"

            def start(self):
                self._first = rack.joules()

            def read(self):
                return {"other": Energy(rack.joules() - self._first, "measured")}

            def close(self):
                pass
        ```

    """

    name: str
    problem: str | None = None

    @abstractmethod
    def start(self) -> None:
        """Start to count. A second call has no effect."""

    @abstractmethod
    def read(self) -> dict[Component, Energy]:
        """Return the energy of every known component since ``start``."""

    @abstractmethod
    def close(self) -> None:
        """Stop counting and release threads and files. ``read`` then returns the last values."""

    def import_libraries(self) -> None:  # noqa: B027  (a hook)
        """Import the libraries that ``start`` uses; called before it, in the thread of the training."""

    def sample(self) -> None:  # noqa: B027  (a hook)
        """Take a sample now and wait for it.

        ``read`` returns the values of the last sample. A sample at every change of the run's state assigns the
        energy to the correct state. Has no effect on a meter that needs no samples.
        """

    def rest(self) -> None:  # noqa: B027  (a hook)
        """Stop the threads until ``wake``, between two fits of a process; ``sample`` still counts all energy so far."""

    def wake(self) -> None:  # noqa: B027  (a hook)
        """Start the threads again after ``rest``."""

    def bind_clock(self, time_source: Callable[[], float]) -> None:  # noqa: B027  (a hook)
        """Use ``time_source``, which returns monotonic seconds, from now on.

        A meter that models energy from the elapsed time follows the simulated clock this way. Other meters ignore it.
        """

    def bind_gpus(self, gpus: Sequence[str]) -> None:  # noqa: B027  (a hook)
        """Restrict the meter to the GPUs of the job, as NVML indices or UUIDs. Call before ``start``.

        Meters without GPUs, and meters for which the user named GPUs, ignore it.
        """

    def set_load(self, fraction: float) -> None:  # noqa: B027  (a hook)
        """Set the fraction of full power that the job draws from now on.

        A meter that models a constant power uses it. Other meters ignore it.
        """

    def label(self, component: Component) -> str:
        """Return a description of the source of a component's energy."""
        return self.name

    def describe(self) -> str:
        """Return one line for the start-up messages, with the quality of each component."""
        return self.name
