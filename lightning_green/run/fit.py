"""One ``fit`` of a run, from its start to its end: what the callbacks of one Trainer share."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl

from lightning_green._lightning.loaders import watch_fetches
from lightning_green._lightning.loggers import logging_step
from lightning_green._lightning.process import gpus_of_job, report_exceptions
from lightning_green._lightning.progress_bars import add_progress_field
from lightning_green._lightning.signals import pop_received_sigterm, requeue_signal
from lightning_green.ledger.events import Validated, Warned
from lightning_green.planning import Plan
from lightning_green.resume.training_state import ExactState, why_not_exact
from lightning_green.run import csv_rows, loggers
from lightning_green.run.boundaries import Action, Boundaries
from lightning_green.run.changed_values import keep_new_values
from lightning_green.run.fit_ending import FitEnding, FitStage
from lightning_green.run.identity import command_line
from lightning_green.run.logged_numbers import logged_numbers
from lightning_green.run.node_sync import join_nodes
from lightning_green.run.pause_rule import PauseRule
from lightning_green.run.progress_field import FIELD, ProgressField
from lightning_green.run.recorded_values import RecordedValues
from lightning_green.run.same_callbacks import SameCallbacks
from lightning_green.run.save_limits import METERED_ONLY
from lightning_green.run.saved_state import CheckpointTimer, SavedState
from lightning_green.run.session import Session
from lightning_green.strategies.control_group import ControlGroup
from lightning_green.strategies.training_group import control_group_of
from lightning_green.supervisor.launchers import limit_signal


class Fit:
    """What the callbacks of one Trainer share during one ``fit``.

    Each method may be called by every callback; the first call acts, so the order of the callbacks does not matter.

    Args:
        session: Session of the fit: meter, grid and ledger.
        trainer: The trainer.
        messages: Lines for the user.
        communicating: Names of the callbacks that communicate with those of other ranks.

    Attributes:
        members: The callbacks.
        actions: Called at boundaries between batches, on rank 0.
        hold_ends: Each returns whether a pause in process has to end before its time; called about every second.
        boundaries: What happens between batches; None if the fit is only metered.
        why_not_exact: Reason why this training is neither paused nor saved, or None.
        makes_decisions: Whether a scheduler may pause and throttle this fit.
        pause_rule: Where the fit may be paused, by a check of the script.
        last_summary: Summary at the end of the training, or None.
        recorded: Optimizers and data as the run directory has recorded them.
        ending: How the fit ends.
        plan: The last plan of a scheduler, or None.
        clock: Clock of the run.

    """

    def __init__(
        self, session: Session, trainer: pl.Trainer, messages: list[str], communicating: Sequence[str] = ()
    ) -> None:
        self.session, self.trainer, self.messages = session, trainer, messages
        self.members: list[Any] = []
        self.actions: list[Action] = []
        self.hold_ends: list[Callable[[], bool]] = []
        self.boundaries: Boundaries | None = None
        self.why_not_exact: str | None = None
        self.makes_decisions = True
        self.pause_rule = PauseRule.from_environment()
        self.last_summary: dict[str, Any] | None = None
        self.plan: Plan | None = None
        self.recorded = RecordedValues(session, trainer, messages)
        self.ending = FitEnding(session, trainer)
        self.clock = session.clock
        self._timer = CheckpointTimer(self.clock)
        self._not_counted: list[str] = []
        self._batch: tuple[int, int] | None = None
        self._callbacks = SameCallbacks(trainer, communicating)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # it belongs to this process: a copy or a pickle of its Trainer has none

    @property
    def ranks(self) -> ControlGroup:
        """Processes of the training."""
        return self.ending.ranks

    @property
    def state(self) -> SavedState | None:
        """The saved training state; None if the fit is only metered."""
        return self.ending.state

    @property
    def closed(self) -> bool:
        """Whether the fit has ended in this process."""
        return self.ending.stage is FitStage.CLOSED

    @property
    def already_finished(self) -> bool:
        """Whether the fit had finished in an earlier process, so that nothing is trained."""
        return self.state is not None and self.state.source.is_final

    @property
    def can_save(self) -> bool:
        """Whether training states are saved."""
        return self.state is not None and self.state.limits.can_save

    def save_every(self, duration: timedelta | None) -> None:
        """Save periodically; the shortest of several requests counts."""
        self._timer.request(duration)

    # -- start --------------------------------------------------------------------------------------------------------

    def prepare_loggers(self) -> None:
        """Set the identities of the loggers, before Lightning creates their experiments."""
        folder, fit = self.session.folder, self.session.fit
        saved = {} if folder is None else dict(folder.record.get("loggers", {}))
        if not self.session.continuing:
            saved = {key: one for key, one in saved.items() if not key.startswith(f"{fit}.")}
        identities = loggers.continue_loggers(self.trainer, saved, fit)
        if folder is not None and folder.record.get("loggers") != identities:
            folder.record["loggers"] = identities
            folder.save()

    def setup(self, wants_exact: bool, saves: bool, allow_inexact: bool) -> None:
        """Find what to restore and prepare the boundaries, in Lightning's ``setup``.

        Args:
            wants_exact: Whether a callback acts at boundaries.
            saves: Whether files may be written.
            allow_inexact: Whether the fit may continue approximately with another number of processes.

        Raises:
            ValueError: If the ranks have different callbacks.

        """
        if self.ending.undo or self.closed:
            return
        self._callbacks.check()
        self.recorded.allow_inexact = allow_inexact
        if (gpus := gpus_of_job(self.trainer)) is not None:
            self.session.bind_gpus(gpus)
        self.ending.ranks, self._not_counted = join_nodes(self.session, self.trainer)
        self.session.start()
        self.ending.undo.append(watch_fetches(self.trainer, self.clock.monotonic, self.session.recorder))
        self.ending.undo.append(report_exceptions(self.trainer, self.ending.fail))
        if not wants_exact:
            return
        self.why_not_exact = self.why_not_exact or why_not_exact(self.trainer)
        if self.why_not_exact is not None:
            self.messages.append(f"{METERED_ONLY}: {self.why_not_exact}.")
            return
        if self.ranks.size == 1:
            self.ending.ranks = control_group_of(self.trainer, self.session.clock)
        state = self.ending.state = SavedState(self.session, self.trainer, self.ranks, self._timer, self.messages)
        self.boundaries = Boundaries(
            self.session,
            self.trainer,
            self.ranks,
            state,
            self.ending.signals,
            self.actions,
            self.ending.interrupt,
            self.ending.follow,
        )
        if state.attach(self._exact_state, saves, self.recorded.check_data):  # the run has been validated before
            steps, self.trainer.num_sanity_val_steps = self.trainer.num_sanity_val_steps, 0
            self.ending.undo.append(lambda: setattr(self.trainer, "num_sanity_val_steps", steps))
        self.ending.undo.append(state.exact.detach)

    def _exact_state(self) -> ExactState:
        assert self.boundaries is not None
        return ExactState(
            self.trainer,
            self.members[0],
            self.boundaries.reached,
            self.ending.save_final,
            self.boundaries.batch_begins,
            self.ranks,
            self.recorded.allow_inexact,
        )

    def check_optimizers(self) -> None:
        """Compare the optimizers with the recorded ones; they exist from ``on_fit_start`` on.

        Raises:
            OtherTrainingError: If they differ and ``--force`` is not set.

        """
        if self.state is not None and self.ending.stage == FitStage.NEW:
            changed = self.recorded.check_optimizers()
            if changed is not None:
                self.state.exact.set_new_values = keep_new_values(self.trainer, *changed)

    def show_progress(self) -> None:
        """Show state, intensity and emissions in the progress bars, on rank 0; in ``setup``."""
        if self.closed or not self.trainer.is_global_zero:  # the bars of other ranks are disabled
            return
        field = ProgressField(self.session.recorder, lambda: self.plan)
        self.ending.undo.append(add_progress_field(self.trainer, FIELD, field.text))

    def begin(self) -> bool:
        """Start to train: compare the data, record the start, and act at boundaries from now on.

        Returns:
            Whether this call started it.

        """
        if self.ending.stage != FitStage.NEW:
            return False
        self.ending.stage, session = FitStage.TRAINING, self.session
        if self.state is not None:
            self.recorded.check_data()
            self._count_rows(self.state)
            if session.continuing and session.repeats_steps and not session.fit:  # later fits may share the logger
                loggers.purge_repeated_steps(self.trainer, logging_step(self.trainer))
            if not session.continuing:
                self.state.check_can_save("epoch")
                self.state.source.record_given()
        session.recorder.read_step = lambda: self.trainer.global_step
        loggers.define_axes(self.trainer)
        if session.folder is not None:
            loggers.record_wandb_folders(self.trainer, session.record_on_disk)
        if self.state is not None:
            self.ending.signals.install(requeue_signal(self.trainer) or limit_signal(), self.state.limits.describe_stop)
            if pop_received_sigterm(self.trainer):  # it came before our handlers were installed
                self.ending.signals.set(signal.SIGTERM)
        if self.ranks.is_rank_zero or session.ledger is not None:
            session.announce(None if self.state is None else self.state.source.description, command_line())
        for line in self._not_counted:
            session.record(Warned(reason=line))
        if self.state is not None:
            self.state.limit(self.pause_rule)
            self.state.exact.activate()
            self.state.plan_next()
        return True

    def _count_rows(self, state: SavedState) -> None:
        """Record the number of logged rows; drop those of an earlier process that was killed before its first save."""
        record, restored = self.session.record_on_disk, state.source.description or self.trainer.ckpt_path
        if self.session.folder is None:
            return
        if not self.session.continuing or "rows" not in record:
            record["rows"] = csv_rows.count_rows(self.trainer)
        elif restored is None:
            csv_rows.drop_rows(self.trainer, record["rows"])

    def batch_ended(self, epoch: int, batch_idx: int) -> None:
        """Advance a simulated clock by one batch."""
        if self._batch != (epoch, batch_idx):
            self._batch = (epoch, batch_idx)
            self.clock.advance("batch")

    def enter_phase(self, phase: str) -> None:
        """Enter a phase, if the fit has started and is in another one."""
        if self.session.announced and self.session.recorder.status.phase != phase:
            self.session.recorder.enter(phase=phase)

    def validation_ended(self) -> None:
        """Record the metrics of a validation, and continue the training phase."""
        metrics = logged_numbers(self.trainer)  # on all ranks: a metric may be synchronized when it is read
        if self.session.announced and self.session.recorder.status.phase == "validation":
            if not self.session.node.rank:
                self.session.record(Validated(metrics=metrics))
            self.enter_phase("training")
