"""What an energy meter is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

Component = Literal["cpu", "gpu", "ram", "other"]
COMPONENTS: tuple[Component, ...] = ("cpu", "gpu", "ram", "other")

Quality = Literal["measured", "modelled", "unavailable"]


class Energy(NamedTuple):
    """Cumulative energy of one component since the meter started.

    Args:
        joules: Energy in joules; never falls from one reading to the next.
        quality: ``"measured"`` by a sensor, ``"modelled"`` (a guess that says so), or ``"unavailable"``.

    """

    joules: float
    quality: Quality


class Meter(ABC):
    """Cumulative energy of the devices that a job uses on this node.

    The contract: :meth:`read` is cumulative since :meth:`start`, monotonic and thread-safe, returns at once, and never
    raises once the meter has started: a sensor that fails keeps its last value, and :attr:`problem` says why.

    Attributes:
        name: A short name for logs and the ledger.
        problem: One sentence about the last failure, or None.

    """

    name: str
    problem: str | None = None

    @abstractmethod
    def start(self) -> None:
        """Begin to count. A second call does nothing."""

    @abstractmethod
    def read(self) -> dict[Component, Energy]:
        """Return the energy of every component that the meter knows since :meth:`start`."""

    @abstractmethod
    def close(self) -> None:
        """Stop counting and let go of threads and files; :meth:`read` keeps answering with the last values."""

    def sample(self) -> None:  # noqa: B027  (a hook)
        """Take a sample now; blocks for as long as one sample takes.

        :meth:`read` answers from the last sample. Where the state of the run changes and at its end, a fresh one puts
        the energy on the right side of the change. Does nothing for a meter that needs no samples.
        """

    def bind_clock(self, time_source: Callable[[], float]) -> None:  # noqa: B027  (a hook)
        """Take the time from ``time_source`` (monotonic seconds) from now on.

        Only a meter that computes energy from time needs it, to run on the simulated clock; one that measures lives in
        real time and ignores it.
        """

    def bind_gpus(self, gpus: Sequence[str]) -> None:  # noqa: B027  (a hook)
        """Say which GPUs of this node the job uses, as NVML indices or UUIDs, before :meth:`start`.

        A meter that would count every GPU of the node counts these alone; others ignore it.
        """

    def set_load(self, fraction: float) -> None:  # noqa: B027  (a hook)
        """Say what fraction of full power the job draws from now on.

        Only a meter that models a constant power needs to be told; one that measures ignores it.
        """

    def describe(self) -> str:
        """Return one line for the start-up block: what is measured, what is modelled."""
        return self.name
