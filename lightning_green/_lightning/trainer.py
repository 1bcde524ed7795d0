"""Every private attribute of Lightning that this project touches, in one place.

Written against Lightning 2.6.6; ``tests/_lightning/test_trainer.py`` asserts that each still exists. What each is for
stands beside its use, because none of it is documented upstream.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    ModelCheckpoint,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
)
from lightning.pytorch.loops.progress import _ProcessedTracker
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.trainer.connectors.signal_connector import _HandlersCompose, _SignalConnector
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.tuner.lr_finder import _determine_lr_attr_name, _LRFinder
from lightning.pytorch.utilities.migration import utils as migration
from lightning.pytorch.utilities.parsing import lightning_getattr, lightning_setattr
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR

if TYPE_CHECKING:
    from lightning.pytorch.loops.loop import _Loop
    from lightning.pytorch.utilities.combined_loader import CombinedLoader


class BeforeExperiment:
    """A descriptor for a callback's ``log``: runs ``on_attach(trainer)`` when Lightning binds it.

    Loggers create their experiments before any callback's ``setup``. The one thing that Lightning does to a callback
    earlier in ``fit`` is to bind ``callback.log = lightning_module.log``, so this is where a run id can still be set.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self._key = f"_bound_{name}"

    def __get__(self, callback: Any, owner: type | None = None) -> Any:
        if callback is None:
            return self
        return callback.__dict__.get(self._key)

    def __set__(self, callback: Any, log: Any) -> None:
        callback.__dict__[self._key] = log
        module = getattr(log, "__self__", None)
        if isinstance(module, pl.LightningModule):
            callback.on_attach(module.trainer, module)


def _loops(trainer: pl.Trainer) -> list[_Loop]:
    fit_loop = trainer.fit_loop
    return [fit_loop, fit_loop.epoch_loop, fit_loop.epoch_loop.val_loop]


def forget_restart(trainer: pl.Trainer) -> None:
    """Have the loops go on as if they had never been restored.

    A state that was saved between two batches needs none of the repairs that Lightning makes to checkpoints that were
    saved inside a hook: they would skip a validation, count a step twice, or not step a plateau scheduler.
    """
    for loop in _loops(trainer):
        loop._restarting = False
        loop._loaded_from_state_dict = False
        loop._resuming_from_checkpoint = False
        loop.reset_restart_stage()


def inject_checkpoint(trainer: pl.Trainer, load: Callable[[], tuple[str, dict[str, Any]] | None]) -> None:
    """Have the next restore of this fit take the checkpoint that ``load`` returns; None leaves the user's own.

    ``setup`` is the last hook before the restore, and by then ``fit`` has passed ``ckpt_path`` on as a local variable.
    """
    connector = trainer._checkpoint_connector
    original = connector.resume_start

    def resume_start(checkpoint_path: Any = None, weights_only: bool | None = None) -> None:
        del connector.resume_start
        loaded = load()
        if loaded is None:
            original(checkpoint_path, weights_only)
        else:
            path, checkpoint = loaded
            connector._ckpt_path = path
            connector._loaded_checkpoint = migration._pl_migrate_checkpoint(checkpoint, path)

    connector.resume_start = resume_start  # type: ignore[method-assign]


def silence_false_warnings() -> None:
    """Have Lightning not warn of what an exact resume has taken care of: mid-epoch checkpoints, folders in use."""
    for message in (
        "You're resuming from a checkpoint that ended before the epoch ended",
        "Checkpoint directory .* exists and is not empty",
    ):
        warnings.filterwarnings("ignore", message=message)


def early_rank(trainer: pl.Trainer) -> int:
    """Return the global rank, also where spawned processes have not been told theirs yet."""
    launcher = trainer.strategy.launcher
    if isinstance(launcher, _MultiProcessingLauncher):
        return trainer.node_rank * trainer.num_devices + trainer.local_rank
    return trainer.global_rank


def stop_other_ranks(trainer: pl.Trainer) -> None:
    """Stop the processes that Lightning started for the other ranks; with one process there are none."""
    launcher = trainer.strategy.launcher
    if launcher is not None:
        launcher.kill(int(signal.SIGTERM))


def take_over_sigterm(trainer: pl.Trainer) -> bool:
    """Return whether Lightning has already received a SIGTERM, and have it forget that: its loops would raise."""
    connector = trainer._signal_connector
    received, connector.received_sigterm = connector.received_sigterm, False
    return received


def gpus_of_job(trainer: pl.Trainer) -> list[str] | None:
    """Return the GPUs of this node that the Trainer was given, as ``CUDA_VISIBLE_DEVICES`` names them; None without."""
    if trainer.strategy.root_device.type != "cuda":
        return None
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return [visible[index] if visible else str(index) for index in trainer.device_ids]


def user_handlers(handler: Any) -> list[Callable[[int, Any], Any]]:
    """Return what the user's script had registered for a signal before Lightning put its own handler around it."""
    if not isinstance(handler, _HandlersCompose):
        return [handler] if callable(handler) and handler is not signal.default_int_handler else []
    own = [one for one in handler.signal_handlers if not isinstance(getattr(one, "__self__", None), _SignalConnector)]
    return [user for one in own for user in user_handlers(one)]


def dump_checkpoint(trainer: pl.Trainer, with_model: bool = True) -> dict[str, Any]:
    """Return everything that Lightning itself would save; weights and optimizer states may be left out.

    Where they are spread over the ranks, Lightning would gather them, and on CPU torch crashes over that.
    """
    strategy = trainer.strategy
    if not with_model:
        strategy.lightning_module_state_dict = dict  # type: ignore[method-assign]
        strategy.optimizer_state = lambda optimizer: {}  # type: ignore[method-assign]
    try:
        checkpoint: dict[str, Any] = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
    finally:
        if not with_model:
            del strategy.lightning_module_state_dict, strategy.optimizer_state
    return checkpoint


_HYPERPARAMETERS = (
    pl.LightningModule.CHECKPOINT_HYPER_PARAMS_KEY,
    pl.LightningModule.CHECKPOINT_HYPER_PARAMS_NAME,
    pl.LightningModule.CHECKPOINT_HYPER_PARAMS_TYPE,
    pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_KEY,
    pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_NAME,
    pl.LightningDataModule.CHECKPOINT_HYPER_PARAMS_TYPE,
)


def drop_hyperparameters(checkpoint: dict[str, Any]) -> None:
    """Remove the hyperparameters of the module and the data module from a checkpoint."""
    for key in _HYPERPARAMETERS:
        checkpoint.pop(key, None)


def add_hyperparameters(trainer: pl.Trainer, checkpoint: dict[str, Any]) -> None:
    """Put the live hyperparameters into a checkpoint, for scripts whose ``on_load_checkpoint`` reads them."""
    for owner in (trainer.lightning_module, trainer.datamodule):  # type: ignore[attr-defined]
        if owner is not None and owner.hparams:
            checkpoint[owner.CHECKPOINT_HYPER_PARAMS_KEY] = dict(owner.hparams)


def let_config_be_saved_again(trainer: pl.Trainer) -> None:
    """Have ``LightningCLI``'s callback write its file again, in the directory that the continued logger has."""
    cli = sys.modules.get("lightning.pytorch.cli")  # a script that has not imported it has no such callback
    for callback in trainer.callbacks if cli is not None else ():  # type: ignore[attr-defined]
        if isinstance(callback, cli.SaveConfigCallback):  # type: ignore[union-attr]
            callback.overwrite = True


def is_tuner_run(trainer: pl.Trainer) -> bool:
    """Return whether this ``fit`` only runs a tuner: ``Tuner(trainer).lr_find(...)`` or ``scale_batch_size(...)``."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(isinstance(one, (BatchSizeFinder, LearningRateFinder)) and one._early_exit for one in callbacks)


def tuned_values(trainer: pl.Trainer) -> list[dict[str, Any]]:
    """Return what the tuner callbacks of a fit have found, as plain Python, in the order of the callbacks."""
    module, found = trainer.lightning_module, list[dict[str, Any]]()
    for one in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(one, BatchSizeFinder):
            size = lightning_getattr(module, one._batch_arg_name)
            found.append({"attribute": one._batch_arg_name, "value": size, "optimal": one.optimal_batch_size})
        elif isinstance(one, LearningRateFinder):
            name = _determine_lr_attr_name(module, one._attr_name) if one._update_attr else None
            result = one.optimal_lr
            found.append(
                {
                    "attribute": name,
                    "value": None if name is None else lightning_getattr(module, name),
                    "results": None if result is None else result.results,
                }
            )
    return found


def restore_tuned(trainer: pl.Trainer, saved: list[dict[str, Any]]) -> Callable[[], None]:
    """Set what :func:`tuned_values` returned, without another search of the tuner callbacks; return what undoes it."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    tuners = [one for one in callbacks if isinstance(one, (BatchSizeFinder, LearningRateFinder))]
    for one, values in zip(tuners, saved, strict=False):
        if values["attribute"] is not None:
            lightning_setattr(trainer.lightning_module, values["attribute"], values["value"])
        if isinstance(one, BatchSizeFinder):
            one.optimal_batch_size = values["optimal"]
        elif values["results"] is not None:
            one.optimal_lr = _LRFinder(one._mode, one._min_lr, one._max_lr, one._num_training_steps)
            one.optimal_lr.results = values["results"]
        one.on_fit_start = lambda *_: None  # type: ignore[method-assign]

    def undo() -> None:
        for one in tuners:
            one.__dict__.pop("on_fit_start", None)

    return undo


def written_places(trainer: pl.Trainer) -> list[str]:
    """Return the directories that the checkpoint callbacks and loggers of a Trainer write to, from ``setup`` on."""
    checkpoints = [one.dirpath for one in trainer.checkpoint_callbacks if isinstance(one, ModelCheckpoint)]
    logs = [logger.log_dir or logger.save_dir for logger in trainer.loggers]
    return list(dict.fromkeys(str(place) for place in (*checkpoints, *logs) if place))


def skip_training(trainer: pl.Trainer, check: Callable[[], None]) -> Callable[[], None]:
    """Have the fit loop set up its data, call ``check`` and train nothing; return what undoes that."""

    def run() -> None:
        trainer.fit_loop.setup_data()
        check()

    trainer.fit_loop.run = run  # type: ignore[method-assign]
    return lambda: trainer.fit_loop.__dict__.pop("run", None)


def go_on_averaging(trainer: pl.Trainer) -> None:
    """Put a restored ``StochasticWeightAveraging`` back to work, which it leaves to the start of the next epoch.

    Its scheduler takes a first step when it is made, so the optimizer's groups are put back afterwards.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, StochasticWeightAveraging) or callback._scheduler_state is None:
            continue
        optimizer, device = trainer.optimizers[0], trainer.lightning_module.device
        before = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        if not isinstance(callback._swa_lrs, list):
            callback._swa_lrs = [callback._swa_lrs] * len(before)
        scheduler = SWALR(
            optimizer,
            swa_lr=callback._swa_lrs,  # type: ignore[arg-type]
            anneal_epochs=callback._annealing_epochs,
            anneal_strategy=callback._annealing_strategy,
            last_epoch=0 if callback._annealing_strategy == "cos" else -1,
        )
        scheduler.load_state_dict(callback._scheduler_state)
        for group, values in zip(optimizer.param_groups, before, strict=True):
            group.update(values)
        assert callback._average_model is not None
        callback._average_model = callback._average_model.to(callback._device or device)
        callback.n_averaged = torch.tensor(callback._init_n_averaged, dtype=torch.long, device=device)
        callback._swa_scheduler = cast(LRScheduler, scheduler)
        callback._initialized, callback._scheduler_state = True, None
        trainer.strategy.lr_scheduler_configs[:] = [LRSchedulerConfig(callback._swa_scheduler)]


def should_accumulate(trainer: pl.Trainer) -> bool:
    """Return whether the gradients of the last batch still wait for their optimizer step."""
    return trainer.fit_loop._should_accumulate()


def between_steps(trainer: pl.Trainer) -> bool:
    """Return whether no gradients wait for their optimizer step and the epoch goes on after the last batch."""
    loop = trainer.fit_loop.epoch_loop
    return loop._accumulated_batches_reached() and not loop._num_ready_batches_reached()


def batch_position(trainer: pl.Trainer) -> tuple[int, int]:
    """Return (epochs that are done, batches of the current epoch that are done)."""
    fit_loop = trainer.fit_loop
    epochs = cast(_ProcessedTracker, fit_loop.epoch_progress.current)
    return epochs.processed, fit_loop.epoch_loop.batch_progress.current.ready


def logging_step(trainer: pl.Trainer) -> int:
    """Return the step that Lightning's own metrics are logged at."""
    return trainer.fit_loop.epoch_loop._batches_that_stepped


def command() -> list[str]:
    """Return the words that start this script again."""
    return ["python", *sys.argv]


def should_log(trainer: pl.Trainer) -> bool:
    """Return whether ``log_every_n_steps`` is due after a training batch; as Lightning decides it, but in one line."""
    every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
    return every > 0 and (trainer.fit_loop.epoch_loop._batches_that_stepped + 1) % every == 0


def train_loaders(trainer: pl.Trainer) -> CombinedLoader | None:
    """Return the training loaders as the loop reads them."""
    return trainer.fit_loop._combined_loader


def batches_ahead(trainer: pl.Trainer) -> int:
    """Return how many batches have been read and not yet trained on: one, where the loaders have no length."""
    return len(getattr(trainer.fit_loop._data_fetcher, "batches", ()))


def _cycling(trainer: pl.Trainer) -> list[bool]:
    combined = trainer.fit_loop._combined_loader
    return getattr(None if combined is None else combined._iterator, "_consumed", [])


def consumed_loaders(trainer: pl.Trainer) -> list[bool]:
    """Return which loaders of a ``max_size_cycle`` have been through in this epoch; it ends when all have."""
    return list(_cycling(trainer))


def set_consumed_loaders(trainer: pl.Trainer, consumed: list[bool]) -> None:
    """Set what :func:`consumed_loaders` returned; the list is made anew with the iterator."""
    _cycling(trainer)[:] = consumed


def rebuild_train_iterator(trainer: pl.Trainer) -> None:
    """Make the iterators of the training loaders anew."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    iter(fetcher)


def watch_fetches(trainer: pl.Trainer, began: Callable[[], None], ended: Callable[[], None]) -> Callable[[], None]:
    """Call back around every fetch of a training batch, in which the loop waits for data; return what undoes it.

    These are the hooks of Lightning's own profiler; the loop hands them to its fetcher when an epoch begins.
    """
    epoch_loop = trainer.fit_loop.epoch_loop
    before, after = epoch_loop._on_before_fetch, epoch_loop._on_after_fetch

    def on_before_fetch() -> None:
        before()
        began()

    def on_after_fetch() -> None:
        ended()
        after()

    epoch_loop._on_before_fetch = on_before_fetch  # type: ignore[method-assign]
    epoch_loop._on_after_fetch = on_after_fetch  # type: ignore[method-assign]

    def undo() -> None:
        for name in ("_on_before_fetch", "_on_after_fetch"):
            epoch_loop.__dict__.pop(name, None)

    return undo


def stage_is_training(trainer: pl.Trainer) -> bool:
    """Return whether loaders that are processed now are training loaders."""
    return bool(trainer.state.stage == RunningStage.TRAINING)


def elapsed_clocks(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the seconds since the last validation and checkpoint by wall time, which Lightning does not save."""
    now, validated = time.monotonic(), getattr(trainer, "_last_val_time", None)
    found = [callback for callback in trainer.callbacks if isinstance(callback, ModelCheckpoint)]  # type: ignore[attr-defined]
    return {
        "validation": None if validated is None else now - validated,
        "checkpoints": [None if one._last_time_checked is None else now - one._last_time_checked for one in found],
    }


def set_elapsed_clocks(trainer: pl.Trainer, saved: dict[str, Any]) -> None:
    """Set what :func:`elapsed_clocks` returned, so that a pause and a restart do not count."""
    now = time.monotonic()
    if saved["validation"] is not None:
        trainer._last_val_time = now - saved["validation"]  # type: ignore[attr-defined]
    found = [callback for callback in trainer.callbacks if isinstance(callback, ModelCheckpoint)]  # type: ignore[attr-defined]
    for callback, elapsed in zip(found, saved["checkpoints"], strict=False):
        if elapsed is not None:
            callback._last_time_checked = now - elapsed


def requeue_signal(trainer: pl.Trainer) -> int | None:
    """Return the signal by which SLURM asks for a requeue, where Lightning listens to it; None elsewhere."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return int(environment.requeue_signal or signal.SIGUSR1)
    return None


def shift_wall_clocks(trainer: pl.Trainer, seconds: float) -> None:
    """Take ``seconds`` of a pause out of every limit that Lightning measures by the wall clock."""
    if getattr(trainer, "_last_val_time", None) is not None:  # there only with validation
        trainer._last_val_time += seconds  # type: ignore[attr-defined]
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Timer):
            for stage, start in callback._start_time.items():
                if start is not None and callback._end_time.get(stage) is None:
                    callback._start_time[stage] = start + seconds
        elif isinstance(callback, ModelCheckpoint) and callback._last_time_checked is not None:
            callback._last_time_checked += seconds
        elif isinstance(callback, ThroughputMonitor):
            for stage in callback._t0s:
                callback._t0s[stage] += seconds


def wrap_loops(
    trainer: pl.Trainer,
    is_tuning: Callable[[], bool],
    before_epoch: Callable[[], None],
    before_batches: Callable[[], None],
    after_batch: Callable[[], None],
    after_run: Callable[[], None],
) -> Callable[[], None]:
    """Call back between epochs and between batches, where no hook is under way; return what undoes it.

    Args:
        trainer: The trainer whose fit loop is wrapped.
        is_tuning: Whether a tuner uses the loops now; then nothing is called.
        before_epoch: Called before ``on_train_epoch_start``, once everything of the previous epoch is done.
        before_batches: Called in an epoch's loop once its counters are restored, before its first batch.
        after_batch: Called once everything about a batch is done: its hooks, a validation that was due, its logging.
        after_run: Called after every ``on_train_end``.

    """
    fit_loop, epoch_loop = trainer.fit_loop, trainer.fit_loop.epoch_loop
    advance_start, run_start = fit_loop.on_advance_start, epoch_loop.on_run_start
    advance_end, run_end = epoch_loop.on_advance_end, fit_loop.on_run_end

    def on_advance_start() -> None:
        if not is_tuning():
            before_epoch()
        advance_start()

    def on_run_start(data_fetcher: Any) -> None:
        tuning = is_tuning()
        if not tuning:
            before_batches()
        run_start(data_fetcher)
        if epoch_loop.restarting and not tuning:
            forget_restart(trainer)

    def on_advance_end(data_fetcher: Any) -> None:
        advance_end(data_fetcher)
        if not is_tuning():
            after_batch()

    def on_run_end() -> None:
        run_end()
        if not is_tuning():
            after_run()

    fit_loop.on_advance_start = on_advance_start  # type: ignore[method-assign]
    epoch_loop.on_run_start = on_run_start  # type: ignore[method-assign]
    epoch_loop.on_advance_end = on_advance_end  # type: ignore[method-assign]
    fit_loop.on_run_end = on_run_end  # type: ignore[method-assign]

    def undo() -> None:
        for loop, name in (
            (fit_loop, "on_advance_start"),
            (epoch_loop, "on_run_start"),
            (epoch_loop, "on_advance_end"),
            (fit_loop, "on_run_end"),
        ):
            loop.__dict__.pop(name, None)

    return undo
