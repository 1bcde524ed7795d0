"""Base of the callbacks that share a run."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_green._lightning.callbacks import BeforeExperiment, CallbackOfBothPackages, output_directories
from lightning_green._lightning.tuner import is_tuner_run
from lightning_green.callbacks._compression import CompressionCallback
from lightning_green.run.coordinator import join_fit
from lightning_green.run.fit import Fit
from lightning_green.run.logger_records import log_settings, plain
from lightning_green.run.options import RunOptions
from lightning_green.run.session import Session


class GreenCallback(CallbackOfBothPackages):
    """Base of the callbacks that share the run of a Trainer.

    A subclass overrides the hooks that it needs and calls ``super()``. The hooks of all callbacks of a Trainer call the
    same ``Fit``, where the first call acts: the order of the callbacks does not matter.

    Args:
        options: What this callback asks of the run.

    Examples:
        ```python
        class StepCounter(GreenCallback):
            def __init__(self) -> None:
                super().__init__(RunOptions())

            def on_train_end(self, trainer, pl_module):
                super().on_train_end(trainer, pl_module)
                print(trainer.global_step, self.session.summary()["energy/kwh"])
        ```

    """

    log = BeforeExperiment()

    wants_exact = False
    """Whether this callback needs the exact training state to be saved."""

    allow_inexact = False
    """Whether this callback accepts that a run continues approximately with another number of processes."""

    replaces_options = False
    """Whether the options of this callback count instead of those of the others."""

    added_by: str | None = None
    """Setting of the environment that has added this callback to the Trainer; None if the script has."""

    def __init__(self, options: RunOptions) -> None:
        self._options = options
        self._last = _LastFit()
        self._fit: Fit | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A fit belongs to its process and to one Trainer. Frameworks copy callbacks before they train with the copies.
        return {**self.__dict__, "_fit": None}

    @property
    def session(self) -> Session | None:
        """Session of the last fit of this callback or of a copy of it, from the start of ``fit`` on."""
        return None if self._last.fit is None else self._last.fit.session

    def on_attach(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Join the fit; called when Lightning binds ``log``, before the loggers' experiments exist."""
        self._fit = None
        members = _members(trainer)
        if self not in members:  # of the environment, and the script has its own
            return
        if trainer.state.fn != TrainerFn.FITTING or is_tuner_run(trainer):
            return
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._last.not_measured = True
            if self is members[0]:
                rank_zero_info("Lightning Green: a `fast_dev_run` is neither measured nor recorded nor paused.")
            return

        def options() -> RunOptions:
            merged = RunOptions()
            for member in [one for one in members if one.replaces_options] or members:
                merged = merged.join(member._options)
            return merged

        exact = [type(member).__name__ for member in members if member.wants_exact]
        several = trainer.num_nodes > 1  # whose nodes add up their energy
        communicating = [type(member).__name__ for member in members] if several else exact
        self._fit = join_fit(trainer, self, options, bool(exact), communicating)
        self._last.fit = self._fit
        if self is next((member for member in members if member.added_by is not None), None):
            added = " and ".join(type(member).__name__ for member in members if member.added_by is not None)
            self._fit.messages.append(f"{added}: added to this Trainer by {self.added_by}")

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._fit is not None:
            members = _members(trainer)
            self._fit.setup(
                wants_exact=any(member.wants_exact for member in members),
                saves=bool(trainer.checkpoint_callbacks),  # with `enable_checkpointing=False` the user wants no files
                allow_inexact=any(member.allow_inexact for member in members),
            )

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None:
            self._fit.check_optimizers()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is None or not self._fit.begin():
            return
        log_settings(trainer, self._all_settings(trainer), self._fit.session.continuing)
        lines: dict[str, str] = {}
        for member in _members(trainer):
            lines.update(member.startup_lines(trainer))
        shown = [f"  {name:<9} {text}" for name, text in lines.items()]
        if self._fit.session.clock.is_simulated and (places := ", ".join(output_directories(trainer))):
            rank_zero_info(f"Lightning Green: rehearsal on a simulated clock; the script itself writes to {places}")
        rank_zero_info("\n".join(["Lightning Green", *shown, *(f"  {line}" for line in self._fit.messages)]))

    def settings(self) -> dict[str, Any]:
        """Return the arguments of this callback for the loggers, without those that all callbacks of a run share."""
        return {}

    def _all_settings(self, trainer: pl.Trainer) -> dict[str, Any]:
        assert self._fit is not None
        session = self._fit.session
        shared = {
            "grid": None if session.grid is None else session.grid.spec() or session.grid.describe(),
            "meter": session.meter.describe(),
            "pue": session.recorder.pue,
        }
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        members: list[GreenCallback | CompressionCallback] = [*_members(trainer)]
        members += [one for one in callbacks if isinstance(one, CompressionCallback)]
        own: dict[str, Any] = {}
        for member in members:
            name = type(member).__name__
            count = sum(one.partition(" ")[0] == name for one in own)
            own[f"{name} {count + 1}" if count else name] = member.settings()
        found: dict[str, Any] = plain({**shared, **own})
        return found

    def startup_lines(self, trainer: pl.Trainer) -> dict[str, str]:
        """Return the lines of the start-up block: a name and a text for each."""
        assert self._fit is not None
        session = self._fit.session
        grid = "none, so there is energy and no gCO2e; give `grid`, for example grid='typical:DE'"
        others = session.node.count - 1
        summed = f"; and those of {others} other {'node' if others == 1 else 'nodes'}" if others else ""
        return {
            "Meter": session.meter.describe() + summed,
            "Grid": grid if session.grid is None else session.grid.describe(),
            "Folder": self._directory_line(self._fit),
        }

    @staticmethod
    def _directory_line(fit: Fit) -> str:
        session = fit.session
        if session.path is None:
            return "none"
        number = f", fit {session.fit}" if session.fit else ""
        if session.attempt == 1 or not session.continuing:
            return f"{session.path}{number}, new"
        restored = None if fit.state is None else fit.state.source.description
        origin = f"continued from {restored}" if restored else "from the beginning"
        return f"{session.path}{number}, attempt {session.attempt}, {origin}"

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._fit is not None and self._fit.clock.is_simulated:
            self._fit.batch_ended(trainer.current_epoch, batch_idx)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None:
            self._fit.enter_phase("validation")

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None:
            self._fit.validation_ended()

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None:
            self._fit.ending.finish()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        if self._fit is not None:
            self._fit.ending.fail(exception)


class _LastFit:
    """The last fit of a callback; its copies in this process share it, so that each of them has its totals."""

    def __init__(self) -> None:
        self.fit: Fit | None = None
        self.not_measured = False

    def __deepcopy__(self, memo: dict[int, Any]) -> _LastFit:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"fit": None, "not_measured": False}


def _members(trainer: pl.Trainer) -> list[GreenCallback]:
    """Return the callbacks that share the run: those of the script, and of the environment those of other classes."""
    found = [callback for callback in trainer.callbacks if isinstance(callback, GreenCallback)]  # type: ignore[attr-defined]
    if all(callback.added_by is None for callback in found):
        return found
    of_script = [callback for callback in found if callback.added_by is None]
    barebones = bool(getattr(trainer, "barebones", False))  # in which Lightning runs nothing but the training

    def is_used(one: GreenCallback) -> bool:
        alike = any(isinstance(own, type(one)) or isinstance(one, type(own)) for own in of_script)
        return one.added_by is None or not (barebones or alike)

    return [one for one in found if is_used(one)]
