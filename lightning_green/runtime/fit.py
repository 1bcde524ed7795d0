"""One ``fit`` of a run: it begins, is saved, left, interrupted, fails or ends, and each goes on record."""

from __future__ import annotations

import hashlib
import logging
import os
import traceback
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_green.runtime import _lightning, loggers
from lightning_green.runtime.checkpoints import final_path, load_checkpoint, load_latest, store_checkpoint, store_final
from lightning_green.runtime.exact import ExactState, Point, fingerprint, refuse_differences
from lightning_green.runtime.launchers import RunPausedExit, paused_exit_code
from lightning_green.runtime.run import Run, RunOptions, bystander, open_run
from lightning_green.runtime.run_folder import FORCE_VARIABLE, RUN_DIR_VARIABLE, command_line, run_name
from lightning_green.runtime.signals import StopSignals

log = logging.getLogger(__name__)

_current: Run | None = None
_fits_in_process = 0


class Fit:
    """What the green callbacks of one Trainer share during one ``fit``.

    Args:
        run: The run of this process.
        trainer: The trainer.
        number: Number of this fit in the process, from 0.

    """

    def __init__(self, run: Run, trainer: pl.Trainer, number: int, told: list[str]) -> None:
        self.run, self.trainer, self.number, self.told = run, trainer, number, told
        self.members: list[Any] = []
        self.closed = False
        self.restored: str | None = None
        self.already_finished = False
        self.exact: ExactState | None = None
        self.checkpoint_every: timedelta | None = None
        self.on_boundary: list[Callable[[Point], None]] = []
        self._next_checkpoint = float("inf")
        self._interrupted_by: str | None = None
        self._ended = False
        self._signals = StopSignals()
        self._saves = False
        self._fetch_from = 0.0
        self._undo_watch: Callable[[], None] | None = None

    # -- how it begins ------------------------------------------------------------------------------------------------

    def prepare_loggers(self) -> None:
        """Give the loggers their identities; before Lightning creates their experiments."""
        folder = self.run.folder
        saved = {} if folder is None or not self.run.continuing else folder.record.get("loggers", {})
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
        gpus = _lightning.gpus_of_job(self.trainer)
        if gpus is not None:
            self.run.meter.bind_gpus(gpus)
        self.run.start()
        self._undo_watch = _lightning.watch_fetches(self.trainer, self._fetch_began, self._fetch_ended)
        if not wants_exact:
            return
        if self.trainer.world_size > 1:
            self.told.append("Several processes: the run is metered; it is neither paused nor saved exactly.")
            return
        self._saves = saves
        folder = self.run.folder
        self.exact = ExactState(self.trainer, self._boundary, self._end)
        resuming = False
        if folder is not None and saves and self.run.continuing:
            self.already_finished = final_path(folder.path, self.number).exists()
            resuming = self.already_finished or bool(list((folder.path / "checkpoints").glob(f"fit{self.number}-*")))
        self.exact.attach(self._load, resuming)
        if resuming:
            self.trainer.num_sanity_val_steps = 0  # the run has been through it
        if self.already_finished:
            self.trainer.should_stop = True

    def _fetch_began(self) -> None:
        self._fetch_from = self.run.clock.monotonic()

    def _fetch_ended(self) -> None:
        self.run.data_wait_seconds += self.run.clock.monotonic() - self._fetch_from

    def _load(self) -> tuple[str, dict[str, Any]] | None:
        folder = self.run.folder
        assert folder is not None
        self._check_fingerprint(fingerprint(self.trainer.lightning_module))
        if self.already_finished:
            path = final_path(folder.path, self.number)
            self.restored = "its final state"
            return str(path), load_checkpoint(path)
        found = load_latest(folder.path, self.number)
        if found is None:
            return None
        stored, checkpoint, problems = found
        for problem in problems:
            self.told.append(f"{problem}. The one before it is used: step {stored.global_step}.")
        self.restored = f"step {stored.global_step}"
        self.run.global_step = stored.global_step
        return str(stored.path), checkpoint

    def _check_fingerprint(self, current: dict[str, Any]) -> None:
        """Compare with what this fit was started with; keep what is new."""
        folder = self.run.folder
        if folder is None:
            return
        fits = folder.record.setdefault("fits", {})
        saved = fits.setdefault(str(self.number), {})
        if self.run.continuing and os.environ.get(FORCE_VARIABLE) != "1":
            refuse_differences(folder.path, saved, current)
        saved.update(current)

    def check_optimizers(self) -> None:
        """Compare the optimizers with those that the run was started with; they exist from ``on_fit_start`` on."""
        if self.exact is not None:
            self._check_fingerprint(fingerprint(self.trainer.lightning_module))
            self._check_fingerprint(
                {
                    "optimizers": [type(optimizer).__name__ for optimizer in self.trainer.optimizers],
                    "world_size": self.trainer.world_size,
                }
            )

    def begin(self) -> None:
        """Begin to train: compare the data, write ``started``, and from now on save and decide at boundaries."""
        if self.exact is not None:
            batches = self.trainer.num_training_batches
            self._check_fingerprint({"training_batches": int(batches) if batches != float("inf") else "unknown"})
        self.run.fit = self.number
        loggers.define_axes(self.trainer)
        folder = self.run.folder
        if folder is not None:
            folder.record.setdefault("wandb_folders", [])
            new = [path for path in loggers.wandb_folders(self.trainer) if path not in folder.record["wandb_folders"]]
            folder.record["wandb_folders"] += new
        self.run.announce(restored=self.restored, script=command_line())
        if self.exact is not None:
            self.exact.activate()
            self._plan_next_checkpoint()
            if _lightning.take_over_sigterm(self.trainer):  # before our handlers were there
                self._signals.received = "SIGTERM"
            self._signals.take()

    # -- boundaries ---------------------------------------------------------------------------------------------------

    def _boundary(self, point: Point) -> None:
        self.run.global_step = self.trainer.global_step
        if self._signals.received is not None:
            self._interrupt(point, self._signals.received)
        self.run.sample_if_due()
        for act in self.on_boundary:
            act(point)
        if self._next_checkpoint != float("inf") and self.run.clock.monotonic() >= self._next_checkpoint:
            self.save(point, "periodic")

    def stop_requested(self) -> bool:
        """Return whether a signal asks this process to stop at the next boundary."""
        return self._signals.received is not None

    def can_save(self) -> bool:
        """Return whether a state can be saved at all."""
        return self._saves and self.run.folder is not None

    def save(self, point: Point, reason: str) -> Path | None:
        """Save the exact state at a boundary; None where it could not be written, which is warned of and on record."""
        assert self.exact is not None
        if self.run.folder is None or not self._saves:
            return None
        # what is saved to leave belongs to the price of leaving and coming back; a periodic one, run-now has as well
        self.run.enter(phase="checkpoint" if reason == "periodic" else "restart")
        checkpoint = self.exact.dump(point)
        try:
            stored = store_checkpoint(self.run.folder.path, self.number, self.trainer.global_step, checkpoint)
        except OSError as error:
            log.warning("The training state could not be saved (%s). Training goes on; free space there.", error)
            self.run.enter(phase="training")
            self.run.record("checkpoint_failed", reason=str(error))
            return None
        finally:
            self._plan_next_checkpoint()
        self.run.clock.advance("checkpoint")
        self.run.phase = "training"
        position = (
            list(_lightning.batch_position(self.trainer)) if point == "batch" else [self.trainer.current_epoch, 0]
        )
        self.run.record("checkpoint", reason=reason, path=stored.path.name, position=position)
        return stored.path

    def _plan_next_checkpoint(self) -> None:
        if self.checkpoint_every is not None and self.can_save():
            self._next_checkpoint = self.run.clock.monotonic() + self.checkpoint_every.total_seconds()

    def leave(self, point: Point, until: datetime, reason: str, **fields: Any) -> None:
        """Save and leave the process; something starts it again. Returns only where the state could not be saved."""
        path = self.save(point, "exit")
        if path is None:
            return
        step = _lightning.logging_step(self.trainer)
        loggers.log_to_all(self.trainer, self.run.metrics(), step)
        loggers.flush(self.trainer)
        self.run.record("paused", reason=reason, until=until.isoformat(), **fields)
        self._interrupted_by = "pause"
        code = paused_exit_code(self.trainer.global_rank)
        loggers.summarise(self.trainer, self.run.summary())
        loggers.leave_experiments(self.trainer, code)
        self._close()
        raise RunPausedExit(code)

    def _interrupt(self, point: Point, name: str) -> NoReturn:
        saved = self.save(point, name) is not None
        how = "saved" if saved else "stopped, with nothing saved,"
        self.run.record("interrupted", reason=f"{name}: {how} at step {self.trainer.global_step}", signal=name)
        self._interrupted_by = name
        loggers.flush(self.trainer)
        self._close()
        if name == "SIGTERM":
            raise SIGTERMException
        raise KeyboardInterrupt

    # -- how it ends --------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Keep the final state, after every ``on_train_end``."""
        self._signals.give_back()
        if not self.can_save() or self.already_finished or self.run.folder is None:
            return
        assert self.exact is not None
        try:
            store_final(self.run.folder.path, self.number, self.exact.dump("epoch"))
        except OSError as error:
            log.warning("The final state could not be saved (%s).", error)
            self.run.record("checkpoint_failed", reason=str(error))

    def finish(self) -> None:
        """Write ``finished``; in ``on_fit_end`` or ``teardown``, where nothing can fail any more."""
        if self.closed or self._ended:
            return
        self._ended = True
        self.run.global_step = self.trainer.global_step
        if self.already_finished and self.exact is not None:
            self.exact.settle()
            self.run.record("finished", reason=f"had finished before, at step {self.trainer.global_step}")
        elif self.run.announced:
            self.run.record("finished", reason=f"{self.trainer.global_step} steps done")
        self._close()

    def fail(self, exception: BaseException) -> None:
        """Write how the fit ended by an exception."""
        if self.closed:
            return
        if self._interrupted_by is None and self.run.announced:
            if isinstance(exception, (KeyboardInterrupt, SIGTERMException)):
                name = "SIGINT" if isinstance(exception, KeyboardInterrupt) else "SIGTERM"
                self.run.record("interrupted", reason=f"{name}: stopped at once", signal=name)
            else:
                text = "".join(traceback.format_exception(exception))
                self.run.record(
                    "failed",
                    reason=f"{type(exception).__name__}: {str(exception)[:500]}",
                    traceback=hashlib.sha256(text.encode()).hexdigest()[:16],
                )
        self._close()

    def _close(self) -> None:
        self.closed = True
        self._signals.give_back()
        if self._undo_watch is not None:
            self._undo_watch()
        if self.exact is not None:
            self.exact.detach()
        self.run.pause_metering()
        if self.run.ledger is not None:
            self.run.ledger.sync()


def join_fit(trainer: pl.Trainer, callback: Any, options: Callable[[], RunOptions]) -> Fit:
    """Return the fit that ``callback`` takes part in; the first callback of a Trainer makes it.

    Args:
        trainer: The trainer, in ``fit``, before ``setup``.
        callback: The green callback.
        options: Returns what all green callbacks of this Trainer ask for together.

    """
    global _current, _fits_in_process
    fit: Fit | None = getattr(trainer, "_lightning_green_fit", None)
    if fit is not None and not fit.closed and callback not in fit.members:
        fit.members.append(callback)
        return fit
    wanted = options()
    path = run_path(trainer)
    told: list[str] = []
    if _current is not None and _current.path != path:
        _current.close()
        _current = None
    if _current is None:
        rank = _lightning.early_rank(trainer)  # one brain: rank 0 alone measures, decides and writes
        _current, told = open_run(path, wanted) if rank == 0 else (bystander(), [])
        _current.path = path
        _fits_in_process = 0
    else:
        _current.options = _current.options.join(wanted)
    fit = Fit(_current, trainer, _fits_in_process, told)
    _fits_in_process += 1
    fit.members.append(callback)
    trainer._lightning_green_fit = fit  # type: ignore[attr-defined]
    fit.prepare_loggers()
    return fit


def run_path(trainer: pl.Trainer) -> Path:
    """Return the folder of this process's run."""
    given = os.environ.get(RUN_DIR_VARIABLE)
    if given:
        return Path(given).absolute()
    return Path(trainer.default_root_dir).absolute() / "lightning_green" / run_name(command_line())


def close_current_run() -> None:
    """End this process's run, so that another one can begin in it (notebooks, tests)."""
    global _current, _fits_in_process
    if _current is not None:
        _current.close()
    _current, _fits_in_process = None, 0
