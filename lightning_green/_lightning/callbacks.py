"""Lightning's own callbacks, and the moment at which it binds a callback's ``log``."""

from __future__ import annotations

import sys
from typing import Any, NoReturn, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import SWALR
from typing_extensions import override

from lightning_green._lightning.namespaces import both, check_package


class CallbackOfBothPackages(pl.Callback):
    """A callback for a Trainer of ``lightning.pytorch`` or of ``pytorch_lightning``, which calls its hooks by name."""

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        check_package(trainer)

    def __iter__(self) -> NoReturn:
        # A Trainer of `pytorch_lightning` takes a callback that is not of its own class for a list.
        name = type(self).__name__
        raise TypeError(
            f"`callbacks` should be a list for `pytorch_lightning`: write Trainer(callbacks=[{name}(...)])."
        )


class BeforeExperiment:
    """A descriptor for a callback's ``log`` that calls ``on_attach(trainer, module)`` when Lightning binds it.

    Loggers create their experiments before any callback's ``setup``. Earlier in ``fit``, Lightning only binds
    ``callback.log = lightning_module.log``; a run id can still be set at that moment.
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
        if isinstance(module, both(pl.LightningModule)):
            check_package(module.trainer)
            callback.on_attach(module.trainer, module)


def allow_config_overwrite(trainer: pl.Trainer) -> None:
    """Let the callback of ``LightningCLI`` write its file again, into the directory of the continued logger."""
    clis = [sys.modules.get(name) for name in ("lightning.pytorch.cli", "pytorch_lightning.cli")]
    kinds = tuple(cli.SaveConfigCallback for cli in clis if cli is not None)  # a script without it has no such callback
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, kinds):
            callback.overwrite = True


def output_directories(trainer: pl.Trainer) -> list[str]:
    """Return the directories that the checkpoint callbacks and loggers of a Trainer write to, from ``setup`` on."""
    checkpoints = [one.dirpath for one in trainer.checkpoint_callbacks if isinstance(one, both(ModelCheckpoint))]
    logs = [logger.log_dir or logger.save_dir for logger in trainer.loggers]
    return list(dict.fromkeys(str(directory) for directory in (*checkpoints, *logs) if directory))


def finetuned_optimizers(trainer: pl.Trainer) -> set[int]:
    """Return the numbers of the optimizers whose parameter groups a finetuning callback has restored.

    ``BaseFinetuning`` replaces the groups in ``on_fit_start`` by those at the time of the checkpoint.
    """
    tuning = [one for one in trainer.callbacks if isinstance(one, both(BaseFinetuning))]  # type: ignore[attr-defined]
    return {number for one in tuning if not one._restarting for number in one._internal_optimizer_metadata}


def schedulers_are_replaced(trainer: pl.Trainer) -> bool:
    """Return whether ``StochasticWeightAveraging`` has restored its own scheduler in place of those of the script."""
    return any(
        one._scheduler_state is not None
        for one in trainer.callbacks  # type: ignore[attr-defined]
        if isinstance(one, both(StochasticWeightAveraging))
    )


def resume_weight_averaging(trainer: pl.Trainer) -> None:
    """Set up a restored ``StochasticWeightAveraging`` at once; by itself it waits for the start of the next epoch.

    Its scheduler takes a first step when it is created, so the settings of the optimizer's groups are restored
    afterwards.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if not isinstance(callback, both(StochasticWeightAveraging)) or callback._scheduler_state is None:
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
