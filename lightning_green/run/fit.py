"""One ``fit`` of a run: it begins, is saved, left, interrupted, fails or ends, and each goes on record."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_green._lightning.elapsed_time import exclude_pause
from lightning_green._lightning.loaders import watch_fetches
from lightning_green._lightning.loggers import logging_step
from lightning_green._lightning.loops import batch_position
from lightning_green._lightning.process import gpus_of_job
from lightning_green._lightning.signals import pop_received_sigterm, requeue_signal
from lightning_green.ledger.run_directory import FORCE_VARIABLE, final_path
from lightning_green.resume import checkpoints
from lightning_green.resume.fingerprint import data_fingerprint, differences, optimizer_fingerprint
from lightning_green.resume.kept_files import keep_files, put_back_files
from lightning_green.resume.plain_data import NotPlainError
from lightning_green.resume.training_state import STATE_KEY, ExactState, Point, why_not_exact
from lightning_green.run import loggers
from lightning_green.run.changed_values import keep_new_values
from lightning_green.run.identity import command_line
from lightning_green.run.node_sync import bring_up_to_date, meet_nodes, summarise_nodes
from lightning_green.run.run import OtherTrainingError, refusal, shorten
from lightning_green.run.session import Session
from lightning_green.run.signals import StopSignals, raise_stop
from lightning_green.run.worker_rank import Follower
from lightning_green.strategies.control_group import Command, ControlGroup
from lightning_green.supervisor.launchers import RunPausedExit, paused_exit_code, requeue

log = logging.getLogger(__name__)


class Fit:
    """What the green callbacks of one Trainer share during one ``fit``.

    Args:
        session: The fit's session: its meter, grid and ledger.
        trainer: The trainer.
        messages: Lines for the user.

    Attributes:
        number: Number of this fit within its run, from 0.
        ranks: The processes of the training.
        follower: What follows rank 0, on the others, where there are boundaries.

    """

    def __init__(self, session: Session, trainer: pl.Trainer, messages: list[str]) -> None:
        self.session, self.trainer, self.number, self.told = session, trainer, session.fit, messages
        self.members: list[Any] = []
        self.closed = False
        self.restored: str | None = None
        self.already_finished = False
        self.exact: ExactState | None = None
        self.checkpoint_every: timedelta | None = None
        self.allow_inexact = False
        self.on_boundary: list[Callable[[Point], None]] = []
        self._next_checkpoint = float("inf")
        self._interrupted_by: str | None = None
        self._ended = self._proven = self._other_world_size = False
        self._sanity_steps: float | None = None
        self._signals = StopSignals()
        self._saves = False
        self._fetch_from = 0.0
        self._undo_watch: Callable[[], None] | None = None
        self.ranks = ControlGroup()
        self.follower: Follower | None = None
        self._not_counted: list[str] = []
        self._path: Path | None = None
        self.why_not_exact: str | None = None
        self.why_not_saved: str | None = None
        self.last_summary: dict[str, Any] | None = None
        self.thread = ""

    # -- how it begins ------------------------------------------------------------------------------------------------

    def prepare_loggers(self) -> None:
        """Give the loggers their identities; before Lightning creates their experiments."""
        folder = self.session.folder
        saved = {} if folder is None else dict(folder.record.get("loggers", {}))
        if not self.session.continuing:
            saved = {key: one for key, one in saved.items() if not key.startswith(f"{self.number}.")}
        identities = loggers.continue_loggers(self.trainer, saved, self.number)
        if folder is not None and folder.record.get("loggers") != identities:
            folder.record["loggers"] = identities
            folder.save()

    def setup(self, wants_exact: bool, saves: bool) -> None:
        """Prepare the fit in Lightning's ``setup``: find what to go on from, and put in the boundaries.

        Args:
            wants_exact: Whether a callback acts at boundaries.
            saves: Whether files may be written.

        """
        if (gpus := gpus_of_job(self.trainer)) is not None:
            self.session.bind_gpus(gpus)
        self.ranks, self._not_counted = meet_nodes(self.session, self.trainer)
        self.session.start()
        self._undo_watch = watch_fetches(self.trainer, self._fetch_began, self._fetch_ended)
        if not wants_exact:
            return
        self.why_not_exact = self.why_not_exact or why_not_exact(self.trainer)
        if self.why_not_exact is not None:
            self.told.append(f"The run is metered, and neither paused nor saved: {self.why_not_exact}.")
            return
        if self.ranks.size == 1:
            self.ranks = ControlGroup(self.trainer.global_rank, self.trainer.world_size, self.session.clock)
        self.follower = None if self.ranks.is_rank_zero else Follower(self.session, self.trainer, self.ranks)
        folder = self.session.folder
        resuming = finished = False
        if folder is not None and saves and self.session.continuing:
            finished = final_path(folder.path, self.number).exists()
            resuming = finished or bool(checkpoints.list_checkpoints(folder.path, self.number))
        path = None if folder is None else folder.path
        shared = saves and folder is not None, resuming, finished, path, self.number, self.session.continuing
        shared = self.ranks.broadcast(shared)
        self._saves, resuming, self.already_finished, self._path, self.number, self.session.continuing = shared
        self.session.fit = self.number
        self.exact = ExactState(
            self.trainer, self.members[0], self._boundary, self._end, self.ranks, self.allow_inexact
        )
        self.exact.attach(self._load, resuming, self._compare_data if self.already_finished else None)
        if resuming:  # the run has been through it
            self._sanity_steps, self.trainer.num_sanity_val_steps = self.trainer.num_sanity_val_steps, 0

    def _fetch_began(self) -> None:
        self._fetch_from = self.session.clock.monotonic()

    def _fetch_ended(self) -> None:
        self.session.data_wait_seconds += self.session.clock.monotonic() - self._fetch_from

    def _load(self) -> tuple[str, dict[str, Any]] | None:
        """Return what to go on from: rank 0 chooses, each rank reads it, and all can, or it is an older one."""
        assert self.exact is not None
        problems, damaged = list[str](), list[Path]()
        while True:
            found = self._choose(problems, damaged) if self.ranks.is_rank_zero else None
            path = self.ranks.broadcast(None if found is None else found[0])
            if path is None:
                return None
            checkpoint = checkpoints.load_checkpoint(Path(path)) if found is None else found[1]
            wrong = self.ranks.broadcast(self.ranks.gather(self.exact.load_shard(Path(path), checkpoint)))
            if not any(wrong):
                return path, checkpoint
            problems += filter(None, wrong)
            damaged.append(Path(path))

    def _choose(self, problems: list[str], damaged: list[Path]) -> tuple[str, dict[str, Any]] | None:
        folder = self.session.folder
        assert folder is not None
        if self.already_finished:
            path = final_path(folder.path, self.number)
            if path in damaged:
                raise RuntimeError(problems[-1])
            self.restored = "its final state"
            checkpoint = checkpoints.load_checkpoint(path)
            put_back_files(self.trainer, folder.path, self.number, checkpoint[STATE_KEY].get("files", []))
            return str(path), checkpoint
        found = checkpoints.load_latest(folder.path, self.number, problems, damaged)
        if found is None:
            return None
        stored, checkpoint, found_problems = found
        for problem in found_problems:
            self.told.append(f"{problem.rstrip('.')}. The one before it is used: step {stored.global_step}.")
        self.restored = f"step {stored.global_step}"
        self.session.global_step = stored.global_step
        return str(stored.path), checkpoint

    def _compare(self, part: str, current: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Compare a part of the fingerprint with the recorded one, and record it; return both where they differ.

        Raises:
            OtherTrainingError: If they differ, unless ``--force`` asks for the new values.

        """
        if self.session.folder is None:
            return None
        record, differ = self.session.record_on_disk, None
        if self.session.continuing and part in record:
            ignored: set[str] = set()
            if self.allow_inexact and self._other_world_size:  # then schedules and loaders have other lengths as well
                ignored = {"world_size", "schedulers", "training_batches", "batch_sizes"}
            saved = {key: value for key, value in record[part].items() if key not in ignored}
            found = differences(saved, current)
            if found and os.environ.get(FORCE_VARIABLE) != "1":
                raise OtherTrainingError(refusal(self.session.path, shorten(found)))
            if found:
                self.told.append(f"Continued with other values, as --force asks for: {shorten(found)}.")
                differ = record[part], current
        record[part] = current
        return differ

    def _compare_data(self) -> None:
        self._compare("data", data_fingerprint(self.trainer))

    def check_optimizers(self) -> None:
        """Compare the optimizers with the recorded ones; they exist from ``on_fit_start`` on.

        Raises:
            OtherTrainingError: If they differ.

        """
        if self.exact is not None:
            known = self.session.record_on_disk.get("optimization", {}).get("world_size", self.trainer.world_size)
            self._other_world_size = known != self.trainer.world_size
            saved = self._compare("optimization", optimizer_fingerprint(self.trainer))
            if saved is not None:
                self.exact.set_new_values = keep_new_values(self.trainer, *saved)

    def begin(self) -> None:
        """Begin to train: compare the data, write ``started``, and from now on save and decide at boundaries."""
        if self.exact is not None:
            self._compare_data()
            if not self.session.continuing:
                self._prove_state("epoch")
        self.session.read_step = lambda: self.trainer.global_step
        loggers.define_axes(self.trainer)
        if self.session.folder is not None:
            loggers.note_wandb_folders(self.trainer, self.session.record_on_disk)
        if self.exact is not None:
            self._signals.take(requeue_signal(self.trainer))
            if pop_received_sigterm(self.trainer):  # it came before our handlers were there
                self._signals.received = "SIGTERM"
        if self.ranks.is_rank_zero or self.session.ledger is not None:
            self.session.announce(restored=self.restored, script=command_line())
        for line in self._not_counted:
            self.session.record("warning", reason=line)
        if self.exact is not None:
            self.exact.activate()
            self._plan_next_checkpoint()

    def _prove_state(self, point: Point) -> None:
        """Prove that the state can be saved and restored, before anything depends on it; else nothing is saved."""
        assert self.exact is not None
        why = self.ranks.broadcast(self.exact.why_not_saved(point)) if self._saves else None
        if why is not None:
            self._saves, self.why_not_saved = False, why
            line = f"The run is metered, and neither paused nor saved: {why}."
            self.told.append(line)
            if self.session.announced:
                log.warning("%s", line)
                self.session.record("warning", reason=line)

    # -- boundaries ---------------------------------------------------------------------------------------------------

    def _boundary(self, point: Point) -> None:
        if not self._proven and self.trainer.global_step > 0:  # now the optimizers have their states
            self._proven = True
            self._prove_state(point)
        if self.ranks.size == 1:  # after every step, so in as few calls as can be
            if self._signals.received is not None:
                self._interrupt(point, self._signals.received)
            self._act(point)
        elif self.ranks.sync_due():
            stop = self._agreed_signal()
            if not self.ranks.is_rank_zero:
                self._follow(point)
                return
            if stop is not None:
                self._interrupt(point, stop)
            self._act(point)
            self.ranks.schedule_next_sync(at_every_boundary=self.session.clock.is_simulated)

    def _act(self, point: Point) -> None:
        """Do what is due at a boundary, on rank 0."""
        clock = self.session.clock
        if clock.is_simulated:
            self.session.sample_if_due()
        for act in self.on_boundary:
            act(point)
        if self._next_checkpoint != float("inf") and clock.monotonic() >= self._next_checkpoint:
            self.save(point, "periodic")

    def _agreed_signal(self) -> str | None:
        """Return the signal that asks any process of this training to stop."""
        own = self._signals.received
        number = self.ranks.all_reduce_max(0 if own is None else int(getattr(signal, own)))
        return None if number == 0 else signal.Signals(number).name

    def _follow(self, point: Point) -> None:
        """Do what rank 0 says, until it goes on."""
        assert self.exact is not None
        assert self.follower is not None
        exact = self.exact
        ends = self.follower.follow(lambda number: exact.dump(point, self._path_of(number)), self._agreed_signal)
        if ends is None:
            return
        command, number = ends
        if command == Command.EXIT:
            self._interrupted_by = "pause"
            bring_up_to_date(self.session, self.ranks)
            self._close()
            raise RunPausedExit(paused_exit_code(self.ranks.rank))
        self._interrupted_by = signal.Signals(number).name
        self._close()
        raise_stop(self._interrupted_by)

    def summary(self) -> dict[str, Any]:
        """Return the totals of all nodes so far; with several nodes, every process calls it at the same place."""
        return summarise_nodes(self.session, self.ranks)

    def stop_requested(self) -> bool:
        """Return whether a signal asks to stop at the next boundary; while held, this keeps the other ranks waiting."""
        self.ranks.send(Command.HEARTBEAT)
        return self._agreed_signal() is not None

    def held_for(self, seconds: float) -> None:
        """End a hold of so many real seconds: it does not count against Lightning's limits of wall time."""
        exclude_pause(self.trainer, seconds)
        self.ranks.send(Command.RESUME, seconds)

    def can_save(self) -> bool:
        """Return whether a state can be saved at all."""
        return self._saves

    def save(self, point: Point, reason: str) -> Path | None:
        """Save the exact state at a boundary; None where it could not be written, which is warned of and on record."""
        assert self.exact is not None
        if self.session.folder is None or not self._saves:
            return None
        # what is saved to leave belongs to the price of leaving and coming back; a periodic one, run-now has as well
        self.session.enter(phase="checkpoint" if reason == "periodic" else "restart")
        number = checkpoints.next_number(self.session.folder.path, self.number)
        self.ranks.send(Command.SAVE, number, float(reason == "periodic"))
        try:
            checkpoint = self.exact.dump(point, self._path_of(number))
            stored = checkpoints.store_checkpoint(
                self.session.folder.path, self.number, self.trainer.global_step, checkpoint
            )
        except (OSError, NotPlainError) as error:
            log.warning(
                "The training state could not be saved (%s). Training continues without it. Fix that, or free disk "
                "space.",
                error,
            )
            self.session.enter(phase="training")
            self.session.record("checkpoint_failed", reason=str(error))
            return None
        finally:
            self._plan_next_checkpoint()
        self.session.clock.advance("checkpoint")
        self.session.phase = "training"
        position = list(batch_position(self.trainer)) if point == "batch" else [self.trainer.current_epoch, 0]
        self.session.record("checkpoint", reason=reason, path=stored.path.name, position=position)
        return stored.path

    def _path_of(self, number: int) -> Path:
        """Return where the checkpoint of that number goes."""
        assert self._path is not None
        return checkpoints.checkpoint_path(self._path, self.number, self.trainer.global_step, number)

    def save_every(self, duration: timedelta | None) -> None:
        """Save periodically; of what several callbacks ask for, the shortest counts."""
        both = [one for one in (self.checkpoint_every, duration) if one is not None]
        self.checkpoint_every = min(both) if both else None

    def _plan_next_checkpoint(self) -> None:
        if self.checkpoint_every is not None and self.can_save():
            self._next_checkpoint = self.session.clock.monotonic() + self.checkpoint_every.total_seconds()

    def leave(self, point: Point, until: datetime, reason: str, **fields: Any) -> None:
        """Save and leave the process; something starts it again. Returns only where the state could not be saved."""
        path = self.save(point, "exit")
        if path is None:
            return
        step = logging_step(self.trainer)
        loggers.log_to_all(self.trainer, self.session.metrics(), step)
        loggers.flush(self.trainer)
        self.session.record("paused", reason=reason, until=until.isoformat(), **fields)
        self._interrupted_by, self.session.run.stops = "pause", True
        self.ranks.send(Command.EXIT)
        code = paused_exit_code(self.trainer.global_rank)
        bring_up_to_date(self.session, self.ranks)
        loggers.summarise(self.trainer, self.session.summary())
        loggers.leave_experiments(self.trainer, code)
        self._close()
        raise RunPausedExit(code)

    def _interrupt(self, point: Point, name: str) -> NoReturn:
        saved = self.save(point, name) is not None
        how = "saved" if saved else "stopped, with nothing saved,"
        self.session.record("interrupted", reason=f"{name}: {how} at step {self.trainer.global_step}", signal=name)
        self._interrupted_by, self.session.run.stops = name, True
        loggers.flush(self.trainer)
        self.ranks.send(Command.INTERRUPT, getattr(signal, name))
        self._close()
        if getattr(signal, name) == requeue_signal(self.trainer):
            requeue()
        raise_stop(name)

    # -- how it ends --------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Keep the final state, after every ``on_train_end``."""
        self._signals.give_back()
        if not self.can_save() or self.already_finished or self._path is None:
            return
        assert self.exact is not None
        try:
            state = self.exact.dump("epoch", final_path(self._path, self.number))
            if self.session.folder is None:  # rank 0 writes
                return
            state[STATE_KEY]["files"] = keep_files(self.trainer, self.session.folder.path, self.number)
            checkpoints.store_final(self.session.folder.path, self.number, state)
        except (OSError, NotPlainError) as error:
            log.warning("The final state could not be saved (%s).", error)
            self.session.record("checkpoint_failed", reason=str(error))

    def finish(self) -> None:
        """Write ``finished``; in ``on_fit_end`` or ``teardown``, where nothing can fail any more."""
        if self.closed or self._ended:
            return
        self._ended = True
        if self.already_finished and self.exact is not None:
            self.exact.settle()
            self.session.global_step = self.trainer.global_step
            self.session.record("finished", reason=f"{self.trainer.global_step} steps done before", again=True)
        elif self.session.announced:
            self.session.meter.sample()
            self.session.record("finished", reason=f"{self.trainer.global_step} steps done")
        self._close()

    def fail(self, exception: BaseException) -> None:
        """Write how the fit ended by an exception."""
        if self.closed:
            return
        if self._interrupted_by is None and self.session.announced:
            if isinstance(exception, (KeyboardInterrupt, SIGTERMException)):
                name = "SIGINT" if isinstance(exception, KeyboardInterrupt) else "SIGTERM"
                self.session.run.stops = True
                self.session.record("interrupted", reason=f"{name}: stopped at once", signal=name)
            else:
                text = "".join(traceback.format_exception(exception))
                self.session.record(
                    "failed",
                    reason=f"{type(exception).__name__}: {str(exception)[:500]}",
                    traceback=hashlib.sha256(text.encode()).hexdigest()[:16],
                    **({"thread": self.thread} if self.thread else {}),
                )
        self._close()

    def _close(self) -> None:
        self.closed = True
        self._signals.give_back()
        if self._undo_watch is not None:
            self._undo_watch()
        if self.exact is not None:
            self.exact.detach()
        if self._sanity_steps is not None:
            self.trainer.num_sanity_val_steps = self._sanity_steps
        if self.session.run.ledger is not None:
            self.session.run.ledger.sync()
        self.session.end()
