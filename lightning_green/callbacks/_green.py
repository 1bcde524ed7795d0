"""What every green callback does: it finds the run, and one of them leads it."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_green._lightning.callbacks import BeforeExperiment, output_directories
from lightning_green._lightning.tuner import is_tuner_run
from lightning_green.run.coordinator import join_fit
from lightning_green.run.fit import Fit
from lightning_green.run.session import RunOptions, Session


class GreenCallback(pl.Callback):
    """Base of the callbacks that share the one run of a process. Their order in the list does not matter."""

    log = BeforeExperiment()

    wants_exact = False
    """Whether this callback needs the training state to be saved exactly."""

    # Around each hook of each callback Lightning enters a context of its profiler, also where the hook does nothing. It
    # leaves out what is not callable, so the hooks of every step that none of these callbacks needs are not.
    on_train_batch_start: Any = None
    on_before_zero_grad: Any = None
    on_before_backward: Any = None
    on_after_backward: Any = None
    on_before_optimizer_step: Any = None

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._last = _LastFit()
        self._fit: Fit | None = None
        self._leads = False  # whether this is the one of its Trainer's green callbacks that acts for all

    def __getstate__(self) -> dict[str, Any]:
        # A fit belongs to its process and to one Trainer. Frameworks copy callbacks before they train with the copies.
        return {**self.__dict__, "_fit": None, "_leads": False}

    @property
    def green_run(self) -> Session | None:
        """The session of the last fit of this callback, or of a copy of it, from the start of ``fit`` on."""
        return None if self._last.fit is None else self._last.fit.session

    def on_attach(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Called by Lightning's binding of ``log``, before the loggers' experiments exist."""
        self._fit = None
        tests = trainer.fast_dev_run or is_tuner_run(trainer)  # type: ignore[attr-defined]
        if trainer.state.fn != TrainerFn.FITTING or tests:
            return
        members = _members(trainer)

        def options() -> RunOptions:
            merged = RunOptions()
            for member in members:
                merged = merged.join(member._options)
            return merged

        self._fit = join_fit(trainer, self, options, needs_state=any(member.wants_exact for member in members))
        self._last.fit = self._fit
        self._leads = self._fit.members[0] is self

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._fit is not None and self._leads:
            wanted = any(member.wants_exact for member in _members(trainer))
            # `enable_checkpointing=False` says that no file is wanted
            self._fit.setup(wants_exact=wanted, saves=bool(trainer.checkpoint_callbacks))

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None and self._leads:
            self._fit.check_optimizers()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None and self._leads:
            self._fit.begin()
            lines: dict[str, str] = {}
            for member in _members(trainer):
                lines.update(member.startup_lines(trainer))
            shown = [f"  {name:<9} {text}" for name, text in lines.items()]
            if self._fit.session.clock.is_simulated and (places := ", ".join(output_directories(trainer))):
                rank_zero_info(f"Lightning Green: rehearsal on a simulated clock; the script itself writes to {places}")
            rank_zero_info("\n".join(["Lightning Green", *shown, *(f"  {line}" for line in self._fit.told)]))

    def startup_lines(self, trainer: pl.Trainer) -> dict[str, str]:
        """Return what to say at start: a name and a line each."""
        assert self._fit is not None
        run = self._fit.session
        grid = "none, so there is energy and no gCO2e; give `grid`, for example grid='typical:DE'"
        if self._fit.session.folder is None:
            folder = "none"
        else:
            number = f", fit {run.fit}" if run.fit else ""
            folder = f"{self._fit.session.folder.path}{number}, new"
            if run.attempt > 1 and run.continuing:
                went_on = f"continued from {self._fit.restored}" if self._fit.restored else "from the beginning"
                folder = f"{self._fit.session.folder.path}{number}, attempt {run.attempt}, {went_on}"
        others = run.node.count - 1
        summed = f"; and those of {others} other {'node' if others == 1 else 'nodes'}" if others else ""
        return {
            "Meter": run.meter.describe() + summed,
            "Grid": grid if run.grid is None else run.grid.describe(),
            "Folder": folder,
        }

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._fit is not None and self._leads:
            self._fit.session.clock.advance("batch")

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None and self._leads and self._fit.session.announced:
            self._fit.session.enter(phase="validation")

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None and self._leads and self._fit.session.announced:
            self._fit.session.enter(phase="training")

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None and self._leads:
            self._fit.finish()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._fit is not None and self._leads:
            self._fit.fail(exception)


class _LastFit:
    """The last fit of a callback; shared by its copies in this process, so that each of them has its totals."""

    def __init__(self) -> None:
        self.fit: Fit | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> _LastFit:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"fit": None}


def _members(trainer: pl.Trainer) -> list[GreenCallback]:
    return [callback for callback in trainer.callbacks if isinstance(callback, GreenCallback)]  # type: ignore[attr-defined]
