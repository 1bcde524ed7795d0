"""Exact training state: where to save it, what is in it, how to go on from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl
from lightning.pytorch.strategies import (
    DDPStrategy,
    DeepSpeedStrategy,
    FSDPStrategy,
    ModelParallelStrategy,
    SingleDeviceStrategy,
)
from lightning.pytorch.utilities import rank_zero_warn

from lightning_green._lightning.callbacks import resume_weight_averaging
from lightning_green._lightning.checkpoint import (
    add_hyperparameters,
    drop_hyperparameters,
    dump_checkpoint,
    filter_resume_warnings,
    inject_checkpoint,
)
from lightning_green._lightning.elapsed_time import elapsed_times, set_elapsed_times
from lightning_green._lightning.loaders import (
    consumed_loaders,
    prefetched_batches,
    rebuild_train_iterator,
    set_consumed_loaders,
    train_loaders,
)
from lightning_green._lightning.loops import (
    between_steps,
    clear_restart_flags,
    is_training_stage,
    skip_training,
    wrap_loops,
)
from lightning_green._lightning.tuner import restore_tuned_values, tuned_values
from lightning_green.resume.checkpoints import SHARDS_KEY, is_there, load_shard, shard_path, write_durably
from lightning_green.resume.iterable_loaders import ReplayedLoader, why_not_replayed
from lightning_green.resume.loaders import CountingLoader, count_batches, wrap_loaders
from lightning_green.resume.metric_state import capture_logged, restore_last_metrics, restore_logged
from lightning_green.resume.module_state import (
    differing,
    digests,
    set_buffers,
    set_gradients,
    unsaved_buffers,
    waiting_gradients,
)
from lightning_green.resume.plain_data import NotPlainError, prove_loads, to_plain
from lightning_green.resume.random_states import capture_random_states, restore_random_states
from lightning_green.resume.resharding import to_world_size
from lightning_green.strategies.control_group import ControlGroup
from lightning_green.strategies.sharded_state import capture_shard, is_sharded, restore_shard, why_not_sharded

STATE_KEY = "lightning_green"
STATE_VERSION = 1
_EXACT_STRATEGIES = (SingleDeviceStrategy, DDPStrategy, FSDPStrategy, ModelParallelStrategy)

Point = Literal["epoch", "batch"]


class InexactStateError(RuntimeError):
    """A checkpoint does not belong to this model, data or code."""


class ExactState:
    """Saves and restores one fit so that it ends with the weights of the fit that never stopped.

    The state is saved between two batches or between two epochs, outside every hook, where nothing is half done. It is
    what Lightning saves, plus the random states and the positions in the training loaders.

    Args:
        trainer: The trainer, during ``setup``.
        member: A callback of this Trainer. A tuner that searches a batch size or a learning rate puts others in its
            place and uses the same loops; what it trains is not the fit, and no state of it is saved.
        on_boundary: Called between batches (``"batch"``) and before each epoch (``"epoch"``), where a state may be
            saved; not inside an accumulation window.
        on_end: Called when the fit has ended, after every ``on_train_end``.
        ranks: The processes of the training; every one of them has an exact state of its own.
        allow_inexact: Whether to go on with another number of processes, approximately.

    Attributes:
        set_new_values: Sets the changed settings of the optimizers after the restore, where the user asks for them.

    """

    def __init__(
        self,
        trainer: pl.Trainer,
        member: pl.Callback,
        on_boundary: Callable[[Point], None],
        on_end: Callable[[], None],
        ranks: ControlGroup | None = None,
        allow_inexact: bool = False,
    ) -> None:
        self._trainer, self._member = trainer, member
        self.set_new_values: Callable[[], None] | None = None
        self._ranks, self.allow_inexact = ranks or ControlGroup(), allow_inexact
        self._sharded = is_sharded(trainer)
        self._buffers_before = {} if self._sharded else digests(trainer.lightning_module, {})
        self._on_boundary = on_boundary
        self._on_end = on_end
        self._pending: dict[str, Any] | None = None
        self._active = False
        self._deferring = False
        self._validation: list[CountingLoader] = []
        self._validation_created: list[bool] = []
        self._undo: list[Callable[[], None]] = []

    def attach(
        self,
        load: Callable[[], tuple[str, dict[str, Any]] | None],
        resuming: bool,
        finished: Callable[[], None] | None = None,
    ) -> None:
        """Prepare a fit.

        Args:
            load: Returns the checkpoint to go on from (its path and content) when Lightning restores, or None.
            resuming: Whether ``load`` is going to return one.
            finished: Called once the data is there, where that is the final state of the fit and nothing is trained.

        """
        trainer = self._trainer
        self._deferring = resuming

        def load_and_keep() -> tuple[str, dict[str, Any]] | None:
            loaded = load()
            if loaded is not None:
                self._pending = self._own_part(loaded[1])
                if self._sharded and self._pending is not None:
                    restore_shard(trainer, self._pending.pop("shard"))
                self._validation_created = list((self._pending or {}).get("validation_created", ()))
                self._undo.append(restore_tuned_values(trainer, (self._pending or {}).get("tuned", [])))
                add_hyperparameters(trainer, loaded[1])
            return loaded

        if resuming:
            filter_resume_warnings()
            inject_checkpoint(trainer, load_and_keep)
        self._undo = [
            wrap_loaders(trainer.strategy, lambda loader: self._count(loader)),
            wrap_loops(
                trainer, self._is_tuning, self._before_epoch, self._before_batches, self._after_batch, self._after_run
            ),
        ]
        if finished is not None:
            self._undo.append(skip_training(trainer, finished))

    def _is_tuning(self) -> bool:
        return all(callback is not self._member for callback in self._trainer.callbacks)  # type: ignore[attr-defined]

    def load_shard(self, path: Path, checkpoint: dict[str, Any]) -> str | None:
        """Add this rank's part of a checkpoint to it; return what is wrong with that part, or None."""
        ranks = checkpoint.get(STATE_KEY, {}).get("ranks", [])
        if not self._sharded or self._ranks.rank >= len(ranks):
            return None
        try:
            ranks[self._ranks.rank]["shard"] = load_shard(path, self._ranks.rank)
        except RuntimeError as error:
            return str(error)
        return None

    def _own_part(self, checkpoint: dict[str, Any]) -> dict[str, Any] | None:
        """Return what a checkpoint holds for this rank, and put its own callbacks' states into it."""
        saved = checkpoint.get(STATE_KEY)
        if saved is None:
            return None
        if len(saved["ranks"]) != self._ranks.size and self.allow_inexact and not self._sharded:
            rank_zero_warn(
                f"The run goes on with {self._ranks.size} processes instead of {len(saved['ranks'])}: not exactly, as "
                "`allow_inexact=True` says."
            )
            to_world_size(checkpoint, STATE_KEY, self._ranks.size)
        if len(saved["ranks"]) != self._ranks.size:
            raise InexactStateError(
                f"The checkpoint holds the states of {len(saved['ranks'])} process(es), and this training has "
                f"{self._ranks.size}. Start it with as many as before"
                + ("" if self._sharded else ", or approximately with `ExactResume(allow_inexact=True)`")
                + ", or anew with `lightning-green run --fresh -- ...`."
            )
        own: dict[str, Any] = saved["ranks"][self._ranks.rank]
        checkpoint.get("callbacks", {}).update(own["callbacks"])
        return {"point": saved["point"], **own}

    def detach(self) -> None:
        """Take back what :meth:`attach` put in."""
        for undo in self._undo:
            undo()
        self._undo = []

    def activate(self) -> None:
        """Begin to call ``on_boundary``; before ``on_train_start`` a tuner may be using the same loops."""
        self._active = True

    def settle(self) -> None:
        """Restore what a script reads after a fit that had finished before; its loops do not run."""
        if self._pending is not None:
            clear_restart_flags(self._trainer)
            restore_last_metrics(self._trainer, self._pending["logged"])
            self._trainer.should_stop = bool(self._pending.get("should_stop", False))
            restore_random_states(self._pending["random"])
            self._pending = None

    def why_not_saved(self, point: Point) -> str | None:
        """Return why the state cannot be saved and restored, and None where it can; all ranks call it together.

        A state without the contents of its tensors is written to memory, read back and compared.
        """
        problem = None
        if self._ranks.size > 1:  # what one rank cannot do would keep the others waiting in the middle of it
            try:
                dump_checkpoint(self._trainer, with_model=False)
            except Exception as error:  # noqa: BLE001 - a hook of the script may raise anything
                problem = f"{type(error).__name__} while it was collected: {error}"
            if any(problems := self._ranks.broadcast([one for one in self._ranks.gather(problem) if one])):
                return str(problems[0])
        try:
            state = self._collect(point, None)
            if self._ranks.is_rank_zero:
                prove_loads(state)
        except NotPlainError as error:
            return str(error).rstrip(".")
        except Exception as error:  # of a hook of the script
            if self._ranks.size > 1:
                raise
            return None if self._trainer.global_step == 0 else f"{type(error).__name__} while it was saved: {error}"
        return None

    def dump(self, point: Point, path: Path | None = None) -> dict[str, Any]:
        """Return the whole state, complete on rank 0. To be called at a boundary, on every rank.

        Args:
            point: Where in the loops it is.
            path: Where rank 0 is going to write it. If the model is spread over the ranks, each of them writes its part
                beside that, before this returns on rank 0.

        Raises:
            OSError: On rank 0, if a rank could not write its part.
            NotPlainError: On rank 0, if there is something in the state that cannot be saved.

        """
        state = self._collect(point, path)
        return cast("dict[str, Any]", to_plain(state)) if self._ranks.is_rank_zero else {}

    def _collect(self, point: Point, path: Path | None) -> dict[str, Any]:
        trainer, module = self._trainer, self._trainer.lightning_module
        checkpoint = dump_checkpoint(trainer, with_model=not self._sharded)
        drop_hyperparameters(checkpoint)  # the script has them, and they may be anything
        own: dict[str, Any] = {
            "random": capture_random_states(),
            "logged": capture_logged(trainer),
            "loaders": [loader.position(prefetched_batches(trainer)) for loader in self._loaders()],
            "consumed": consumed_loaders(trainer),
            "validation_created": [loader.created for loader in self._validation],
            "tuned": tuned_values(trainer),
            "should_stop": bool(trainer.should_stop),
            "elapsed": elapsed_times(trainer),
            "gradients": waiting_gradients(module),
            "buffers": {} if self._sharded else unsaved_buffers(module, self._buffers_before),
            "callbacks": {},
        }
        if self._ranks.size > 1:
            callbacks = checkpoint.get("callbacks", {})
            compared = None if self._sharded else module  # a shard holds every buffer
            reference = self._ranks.broadcast(digests(compared, callbacks) if self._ranks.is_rank_zero else None)
            drifted = differing(compared, callbacks, reference)
            own["buffers"] |= drifted["buffers"]
            own["callbacks"] = drifted["callbacks"]
        parts = self._ranks.gather((own, self._write_shard(path) if self._sharded and path is not None else None))
        checkpoint[STATE_KEY] = {"version": STATE_VERSION, "point": point, "ranks": [own for own, _ in parts]}
        shards = [shard for _, shard in parts if shard is not None]
        for name, size, failure in shards:
            if failure:
                raise OSError(failure)
            if path is not None and not is_there(path.with_name(name), size):
                raise OSError(f"{name}, which another process wrote, is not in {path.parent} here")
        if shards:
            checkpoint[SHARDS_KEY] = {name: size for name, size, _ in shards}
        return checkpoint

    def _write_shard(self, path: Path) -> tuple[str, int, str]:
        """Write this rank's part; return its name, its size in bytes, and what went wrong."""
        shard = shard_path(path, self._ranks.rank)
        try:
            write_durably(capture_shard(self._trainer), shard)
        except OSError as error:  # raised on rank 0, once all have met: the others would wait for one that had gone
            return shard.name, 0, str(error)
        return shard.name, shard.stat().st_size, ""

    def _count(self, loader: Any) -> Any:
        if self._is_tuning():
            return loader
        training = is_training_stage(self._trainer)
        deferred = self._deferring and training
        counted = count_batches(loader, self._trainer.global_rank, deferred)
        if training and counted is loader:
            why_not = why_not_replayed(loader)
            if why_not is None:
                return ReplayedLoader(loader, deferred)
            rank_zero_warn(f"A resume cannot continue the training data exactly: {why_not}.")
        if not training and isinstance(counted, CountingLoader):
            if len(self._validation) < len(self._validation_created):
                counted.created = self._validation_created[len(self._validation)]
            self._validation.append(counted)
        return counted

    def _loaders(self) -> list[CountingLoader | ReplayedLoader]:
        combined = train_loaders(self._trainer)
        found = [] if combined is None else combined.flattened
        return [loader for loader in found if isinstance(loader, (CountingLoader, ReplayedLoader))]

    def _place_loaders(self, at_start: bool) -> None:
        assert self._pending is not None
        self._deferring = False
        loaders, positions = self._loaders(), self._pending["loaders"]
        if len(loaders) != len(positions):
            raise InexactStateError(
                f"The checkpoint was saved with {len(positions)} training loader(s) and there are {len(loaders)} now. "
                "Start the run with the data it was saved with, or anew with `--fresh`."
            )
        for loader, position in zip(loaders, positions, strict=True):
            loader.resume(position, at_start)

    def _before_epoch(self) -> None:
        if not self._active:
            return
        if self._pending is not None and self._pending["point"] == "epoch":
            first = self._trainer.current_epoch == 0
            self._place_loaders(at_start=not first)
            if first:  # Lightning makes the iterators of the first epoch before the first hook, not at its start
                rebuild_train_iterator(self._trainer)
            clear_restart_flags(self._trainer)
            self._restore_rest()
        elif self._pending is None:
            self._on_boundary("epoch")

    def _before_batches(self) -> None:
        if self._active and self._pending is not None:
            self._place_loaders(at_start=False)
            rebuild_train_iterator(self._trainer)
            set_consumed_loaders(self._trainer, self._pending["consumed"])
            self._restore_rest()

    def _restore_rest(self) -> None:
        """Restore what Lightning does not; the random states last, because the rest may draw from them."""
        assert self._pending is not None
        resume_weight_averaging(self._trainer)
        if self.set_new_values is not None:
            self.set_new_values()
        set_elapsed_times(self._trainer, self._pending["elapsed"])
        set_gradients(self._trainer.lightning_module, self._pending["gradients"])
        set_buffers(self._trainer.lightning_module, self._pending["buffers"])
        restore_logged(self._trainer, self._pending["logged"])
        restore_random_states(self._pending["random"])
        self._pending = None

    def _after_batch(self) -> None:
        # The end of an epoch is a boundary of its own, once the hooks of the epoch's end have run.
        if self._active and between_steps(self._trainer):
            self._on_boundary("batch")

    def _after_run(self) -> None:
        if self._active:
            self._on_end()


def why_not_exact(trainer: pl.Trainer) -> str | None:
    """Return why the state of a training cannot be saved exactly; None where it can."""
    strategy = trainer.strategy
    if not isinstance(strategy, _EXACT_STRATEGIES) or isinstance(strategy, DeepSpeedStrategy):  # which is a kind of DDP
        return f"the states of {type(strategy).__name__} are not saved exactly; use DDP or FSDP"
    return why_not_sharded(trainer) if is_sharded(trainer) else None
