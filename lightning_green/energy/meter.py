"""What an energy meter is."""

from __future__ import annotations

from abc import ABC, abstractmethod
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

    def set_load(self, fraction: float) -> None:
        """Say what fraction of full power the job draws from now on.

        Only a meter that models a constant power needs to be told; one that measures ignores it.
        """

    def describe(self) -> str:
        """Return one line for the start-up block: what is measured, what is modelled."""
        return self.name
