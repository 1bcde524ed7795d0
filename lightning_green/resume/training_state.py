"""The exact training state of one fit: when it is saved, and how training continues from it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)

from lightning_green._lightning.checkpoint import add_hyperparameters, filter_resume_warnings, inject_checkpoint
from lightning_green._lightning.ddp import why_layout_unknown
from lightning_green._lightning.loops import (
    between_steps,
    clear_restart_flags,
    skip_training,
    wrap_loops,
    wrap_sanity_check,
)
from lightning_green._lightning.namespaces import both
from lightning_green._lightning.tuner import restore_tuned_values
from lightning_green.resume.checkpoints import SHARDS_KEY, STATE_KEY, load_shard, shard_path
from lightning_green.resume.communication import Communication
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.loader_positions import LoaderPositions
from lightning_green.resume.rank_state import restore_finished_state, restore_rank_state, select_rank_state
from lightning_green.resume.script_attributes import ScriptAttributes
from lightning_green.resume.state_capture import Point, StateCapture
from lightning_green.strategies.control_group import ControlGroup
from lightning_green.strategies.sharded_state import is_sharded, restore_shard, why_not_sharded

__all__ = ["STATE_KEY", "ExactState", "InexactStateError", "Point", "why_not_exact"]

_EXACT_STRATEGIES = (SingleDeviceStrategy, DDPStrategy, FSDPStrategy, ModelParallelStrategy)


class ExactState:
    """Saves and restores one fit so that it ends with the weights of an uninterrupted fit.

    The state is saved between two batches or between two epochs, outside every hook. It consists of Lightning's
    checkpoint, the random states and the positions in the training loaders.

    Args:
        trainer: The trainer, during ``setup``.
        member: A callback of this Trainer. A tuner that searches a batch size or a learning rate replaces the callbacks
            and uses the same loops; its trial steps are not part of the fit, and no state of it is saved.
        on_boundary: Called between batches (``"batch"``) and before each epoch (``"epoch"``), where a state may be
            saved; not inside an accumulation window.
        on_end: Called when the fit has ended, after every ``on_train_end``.
        on_batch: Called on each of several ranks before a batch is fetched; after a boundary between batches, nothing
            has happened in between.
        ranks: The ranks of the training; each of them has an exact state.
        allow_inexact: Whether to continue approximately with another number of ranks.

    Attributes:
        set_new_values: Sets the changed settings of the optimizers after the restore, if the user asks for them.

    """

    def __init__(
        self,
        trainer: pl.Trainer,
        member: pl.Callback,
        on_boundary: Callable[[Point], None],
        on_end: Callable[[], None],
        on_batch: Callable[[], None] | None = None,
        ranks: ControlGroup | None = None,
        allow_inexact: bool = False,
    ) -> None:
        self._trainer, self._member = trainer, member
        self._on_boundary, self._on_end, self._on_batch = on_boundary, on_end, on_batch
        self._ranks, self._allow_inexact = ranks or ControlGroup(), allow_inexact
        self.set_new_values: Callable[[], None] | None = None
        self._loaders = LoaderPositions(trainer, self._is_tuning)
        self._attributes = ScriptAttributes(trainer)
        self._communication = Communication(trainer)
        self._capture = StateCapture(trainer, self._ranks, self._loaders, self._attributes, self._communication)
        self._pending: dict[str, Any] | None = None  # the loaded state, until it is restored
        self._active = False
        self._callbacks: list[pl.Callback] | None = None  # of the trainer, when the training began
        self._undo = ExitStack()

    def attach(
        self,
        load: Callable[[Any], tuple[str, dict[str, Any]] | None],
        resuming: bool,
        restored: Callable[[dict[str, Any]], None] | None = None,
        finished: Callable[[], None] | None = None,
    ) -> None:
        """Prepare a fit.

        Args:
            load: Returns the path and the content of the checkpoint to continue from, or None; called with the
                ``ckpt_path`` of the user when Lightning restores.
            resuming: Whether ``load`` will return a checkpoint.
            restored: Called with that checkpoint, before the states of the callbacks are loaded.
            finished: Called once the data is set up, if the checkpoint is the final state of the fit and nothing is
                trained.

        """
        trainer = self._trainer

        def load_and_keep(given: Any) -> tuple[str, dict[str, Any]] | None:
            self._capture.references.begin(trainer.callbacks)  # type: ignore[attr-defined]
            loaded = load(given) if resuming else None
            if loaded is not None:
                self._take(loaded[1])
                self._capture.references.resolve(loaded[1])
                add_hyperparameters(trainer, loaded[1])
                if restored is not None:
                    restored(loaded[1])
            return loaded

        if resuming:
            filter_resume_warnings()
        self._undo.callback(inject_checkpoint(trainer, load_and_keep))
        self._undo.callback(self._loaders.attach(resuming))
        self._undo.callback(
            wrap_sanity_check(trainer, self._attributes.before_sanity_check, self._attributes.after_sanity_check)
        )
        self._undo.callback(
            wrap_loops(
                trainer,
                self._is_tuning,
                self._before_epoch,
                self._before_batches,
                self._after_batch,
                self._after_run,
                self._on_batch,
            )
        )
        if finished is not None:
            self._undo.callback(skip_training(trainer, finished))

    def detach(self) -> None:
        """Undo ``attach``."""
        self._undo.close()

    def activate(self) -> None:
        """Begin to call ``on_boundary``; before ``on_train_start`` a tuner may use the same loops."""
        self._active, self._callbacks = True, self._trainer.callbacks  # type: ignore[attr-defined]

    def restore_finished(self) -> None:
        """Restore the attributes that a script reads after a fit, when the fit finished earlier and trains nothing."""
        if self._pending is not None:
            clear_restart_flags(self._trainer)
            self._loaders.restore_finished(self._pending)  # the next fit may draw from the same generators
            restore_finished_state(self._trainer, self._pending, self._attributes)
            self._pending = None

    def load_shard(self, path: Path, checkpoint: dict[str, Any]) -> str | None:
        """Add the part of this rank to a checkpoint; return an error message if it cannot be read, else None."""
        ranks = checkpoint.get(STATE_KEY, {}).get("ranks", [])
        name = shard_path(path, self._ranks.rank).name
        has_shard = is_sharded(self._trainer) or name in checkpoint.get(SHARDS_KEY, {})
        if not has_shard or self._ranks.rank >= len(ranks):
            return None
        try:
            ranks[self._ranks.rank]["shard"] = load_shard(path, self._ranks.rank)
        except RuntimeError as error:
            return str(error)
        return None

    @property
    def why_epochs_only(self) -> str | None:
        """Why a resume in the middle of an epoch is not exact, once the training loaders are set up; None if it is."""
        return self._loaders.why_epochs_only

    @property
    def why_never_exact(self) -> str | None:
        """Why no resume is exact, once the training loaders are set up; None if one is."""
        return self._loaders.why_never or why_layout_unknown(self._trainer)

    def why_not_saved(self, point: Point) -> str | None:
        """Return why the state cannot be saved and restored, None if it can; called on all ranks together."""
        return self._capture.why_not_saved(point)

    def dump(self, point: Point, path: Path | None = None) -> dict[str, Any]:
        """Return the whole state on rank 0; called at a boundary, on every rank.

        Args:
            point: The boundary.
            path: Path to which rank 0 will write the state. Each rank of a sharded model writes its part next to it.

        Raises:
            OSError: On rank 0, if a rank could not write its part.
            NotPlainError: On rank 0, if a part of the state cannot be saved.

        """
        return self._capture.dump(point, path)

    def _is_tuning(self) -> bool:
        if self._trainer.callbacks is self._callbacks:  # type: ignore[attr-defined]
            return False  # a tuner replaces the list; this is asked after every batch
        return all(callback is not self._member for callback in self._trainer.callbacks)  # type: ignore[attr-defined]

    def _take(self, checkpoint: dict[str, Any]) -> None:
        """Keep the part of this rank of a checkpoint, and restore the parts that are needed before the data is."""
        sharded = is_sharded(self._trainer)
        self._pending = select_rank_state(checkpoint, self._ranks.rank, self._ranks.size, sharded, self._allow_inexact)
        saved = self._pending or {}
        if sharded and self._pending is not None:
            restore_shard(self._trainer, self._pending.pop("shard"))
        self._loaders.set_loading(saved)
        self._undo.callback(restore_tuned_values(self._trainer, saved.get("tuned", [])))

    def _before_epoch(self) -> None:
        if not self._active:
            return
        self._attributes.begin()
        self._communication.begin()
        if self._pending is None:
            self._on_boundary("epoch")
        elif self._pending["point"] == "epoch":
            self._communication.restore(self._pending["communication"])
            self._attributes.restore(self._pending["attributes"])
            first = self._trainer.current_epoch == 0
            self._loaders.restore(self._pending, at_start=not first)
            if first:  # Lightning creates the iterators of the first epoch before the first hook
                self._loaders.restore_iterators(self._pending)
            clear_restart_flags(self._trainer)
            self._restore_rest(self._pending)

    def _before_batches(self) -> None:
        if self._active and self._pending is not None:
            self._communication.restore(self._pending["communication"])
            self._attributes.restore(self._pending["attributes"])  # workers get copies of the datasets
            self._loaders.restore(self._pending, at_start=False)
            self._loaders.restore_iterators(self._pending)
            self._restore_rest(self._pending)

    def _restore_rest(self, saved: dict[str, Any]) -> None:
        restore_rank_state(self._trainer, saved, self.set_new_values)
        self._pending = None

    def _after_batch(self) -> None:
        # The end of an epoch is a boundary of its own, after the hooks of its end.
        if self._active and between_steps(self._trainer):
            self._on_boundary("batch")

    def _after_run(self) -> None:
        if self._active:
            self._on_end()


def why_not_exact(trainer: pl.Trainer) -> str | None:
    """Return why the state of a training cannot be saved exactly; None if it can."""
    strategy = trainer.strategy
    if not isinstance(strategy, both(*_EXACT_STRATEGIES)) or isinstance(
        strategy, both(DeepSpeedStrategy)
    ):  # a subclass of DDP
        return f"the states of {type(strategy).__name__} are not saved exactly; use DDP or FSDP"
    return why_not_sharded(trainer) if is_sharded(trainer) else None
