"""What every rank other than 0 does at a boundary."""

from __future__ import annotations

from collections.abc import Callable

import lightning.pytorch as pl

from lightning_green._lightning.elapsed_time import exclude_pause
from lightning_green.ledger.events import Interrupted, Paused
from lightning_green.run.session import Session
from lightning_green.strategies.control_group import Command, ControlGroup

_REASON = "as rank 0 does"


class WorkerRank:
    """Follows the commands of rank 0. The ledger and the meter of its node enter the same states.

    Args:
        session: Session of this process.
        trainer: The trainer.
        ranks: Processes of the training.

    Attributes:
        on_level: Sets a throttle level: its number, power and speed. Set on the first process of a node.
        on_budget: Each is called when the budget of its number is used.

    """

    def __init__(self, session: Session, trainer: pl.Trainer, ranks: ControlGroup) -> None:
        self._session, self._trainer, self._ranks = session, trainer, ranks
        self.on_level: Callable[[int, float, float], None] | None = None
        self.on_budget: dict[int, Callable[[], None]] = {}

    def follow(self, dump: Callable[[int], object], report_signal: Callable[[], object]) -> tuple[Command, int] | None:
        """Follow rank 0 until it continues.

        Args:
            dump: Takes part in the checkpoint with that number.
            report_signal: Takes part in the exchange of received signals.

        Returns:
            None to continue training, or the command that ends the fit and its number.

        """
        saving = False
        while True:
            command, (first, second, third) = self._ranks.receive()
            if saving:
                self._enter(phase="training")
                saving = False
            if command == Command.CONTINUE:
                if self._session.announced:
                    self._session.sample_if_due()
                return None
            if command in (Command.EXIT, Command.INTERRUPT):
                if self._session.announced:
                    kind = Paused if command == Command.EXIT else Interrupted
                    self._session.record(kind(reason=_REASON))
                return command, int(first)
            if command == Command.SAVE:
                self._enter(phase="checkpoint" if second else "restart")
                saving = True
                dump(int(first))
            elif command == Command.HOLD:
                self._session.meter.set_load(first)
                self._enter(state="held", phase="held")
            elif command == Command.HEARTBEAT:
                report_signal()
            elif command == Command.RESUME:
                exclude_pause(self._trainer, first)
                self._session.meter.set_load(1.0)
                self._enter(state="running", phase="training")
            elif command == Command.SET_LEVEL and self.on_level is not None:
                self.on_level(int(first), second, third)
            elif command == Command.BUDGET and int(first) in self.on_budget:
                self.on_budget[int(first)]()

    def _enter(self, state: str | None = None, phase: str | None = None) -> None:
        if self._session.announced:
            self._session.recorder.enter(state=state, phase=phase, reason=_REASON)
