"""The callback of a check: makes the training short, writes a trace of it, and stops it at boundaries."""

from __future__ import annotations

import collections
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from typing_extensions import override

from lightning_green._lightning.limits import (
    accumulated_batches,
    limit_evaluation,
    limit_training,
    redirect_outputs,
    scheduled_changes,
)
from lightning_green._lightning.loaders import train_loaders
from lightning_green._lightning.loops import batch_position
from lightning_green.callbacks._green import GreenCallback
from lightning_green.check.job import Job, Stop
from lightning_green.check.object_graph import digest, object_graph
from lightning_green.ledger.events import Paused
from lightning_green.resume.module_state import full_digest
from lightning_green.resume.object_walk import GENERATORS, is_script_class, script_files
from lightning_green.resume.random_states import capture_random_states
from lightning_green.resume.training_state import Point
from lightning_green.run.options import RunOptions

_MAX_EPOCHS = 30
_LIGHTNING = ("lightning.", "pytorch_lightning.", "lightning_green.")


class Probe(GreenCallback):
    """Makes each fit short, writes what it trains with, and stops it at the stops of the job.

    It takes part in the run like any callback that needs the exact training state. The other Lightning Green callbacks
    of the script neither measure nor decide while it is there; their totals are of a constant power and intensity.
    """

    wants_exact = True
    replaces_options = True

    def __init__(self) -> None:
        super().__init__(RunOptions(meter=100.0, grid=100.0))  # constants, for scripts that use their totals
        job = Job.of_process()
        assert job is not None
        self._job = job
        self._killing: Stop | None = None  # reset for each fit of the Trainer
        self._batches_until_kill = 0

    # -- start --------------------------------------------------------------------------------------------------------

    @override
    def on_attach(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        limit_evaluation(trainer)
        super().on_attach(trainer, pl_module)
        if self._fit is None:
            return
        self._fit.makes_decisions = False
        self._killing, self._batches_until_kill = None, 0
        changes = scheduled_changes(trainer)
        epochs = min(max([self._job.epochs, *(epoch + 2 for epoch in changes)]), _MAX_EPOCHS)
        batches = max(self._job.batches, 2 * accumulated_batches(trainer) + 1)
        limit_training(trainer, epochs, batches)
        unknown = redirect_outputs(trainer, self._job.directory / "outputs")
        self._write("attached", loggers=unknown, changes=changes, files=script_files())

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and self._fit is not None:
            self._fit.actions.append(self._at_boundary)
        super().setup(trainer, pl_module, stage)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._fit is None:
            return
        state = self._fit.state
        self._write(
            "started",
            restored=None if state is None else state.source.description,
            why_not_saved=self._fit.why_not_exact or (None if state is None else state.limits.why_not_saved),
            can_save=self._fit.can_save,
            why_epochs_only=None if state is None else state.exact.why_epochs_only,
            epochs=trainer.max_epochs,
            batches=trainer.num_training_batches,
            seeded="PL_GLOBAL_SEED" in os.environ,
        )

    # -- stops --------------------------------------------------------------------------------------------------------

    def _at_boundary(self, point: Point) -> None:
        fit, stop = self._fit, self._job.next_stop
        if fit is None or stop is None or self._killing is not None or self._run > 0:
            return
        position = batch_position(fit.trainer) if point == "batch" else (fit.trainer.current_epoch, 0)
        if (fit.session.fit, *position) < (stop.fit, stop.epoch, stop.batch):
            return
        if stop.kill:
            assert fit.state is not None
            fit.state.save(point, "periodic")
            self._killing, self._batches_until_kill = stop, 2
            return
        self._job.reach()
        self._write("stopped", stop=stop.describe(), step=fit.trainer.global_step)
        fit.ending.exit_until(point, Paused(reason="check", until=fit.session.clock.now()))
        self._write("not stopped", stop=stop.describe())

    def _kill_if_due(self) -> None:
        if self._killing is not None:
            self._job.reach()
            self._write("stopped", stop=self._killing.describe())
            os.kill(os.getpid(), signal.SIGKILL)

    # -- trace --------------------------------------------------------------------------------------------------------

    def _write(self, kind: str, **content: Any) -> None:
        if self._fit is not None and self._fit.trainer.global_rank == 0:
            self._job.append({"kind": kind, "run": self._run, "fit": self._fit.session.fit, **content})

    @property
    def _run(self) -> int:
        """Number of the run among those of the command, which may start several trainings."""
        folder = None if self._fit is None else self._fit.session.folder
        return 0 if folder is None else int(folder.record.get("index", 0))

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._fit is None:
            return
        self._write(
            "point",
            at=[trainer.current_epoch, batch_idx, "batch"],
            attributes=_attributes(trainer),
            samples=digest(batch),
            random=_random_states(),
            settings=_settings(trainer),
        )

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self._fit is None:
            return
        self._write(
            "point",
            at=[trainer.current_epoch, batch_idx, "step"],
            loss=digest(outputs),
            weights=full_digest(pl_module),
            metrics=_metrics(trainer),
        )
        if self._killing is not None:
            self._batches_until_kill -= 1
            if self._batches_until_kill == 0:
                self._kill_if_due()

    @override
    def on_validation_batch_start(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        super().on_validation_batch_start(trainer, pl_module, batch, batch_idx, dataloader_idx)
        if self._fit is None or trainer.sanity_checking or not self._fit.session.announced:
            return
        step = trainer.fit_loop.total_batch_idx
        self._write("point", at=[step, dataloader_idx, batch_idx, "validation"], samples=digest(batch))
        self._kill_if_due()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self._fit is not None:
            self._write("point", at=[trainer.current_epoch, "epoch end"], metrics=_metrics(trainer))

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._fit is not None and self._fit.session.announced:
            best = [getattr(one, "best_model_score", None) for one in trainer.checkpoint_callbacks]
            self._write(
                "point",
                at=["end"],
                weights=full_digest(pl_module),
                metrics=_metrics(trainer),
                steps=trainer.global_step,
                best=digest(best),
            )
        super().on_fit_end(trainer, pl_module)


def _attributes(trainer: pl.Trainer) -> dict[str, str]:
    """Return the attributes of the script's objects that may change during a training."""
    module = trainer.lightning_module
    roots: dict[str, Any] = {"module": module, "datamodule": trainer.datamodule}  # type: ignore[attr-defined]
    for index, one in enumerate(trainer.callbacks):  # type: ignore[attr-defined]
        if not type(one).__module__.startswith(_LIGHTNING):
            roots[f"callbacks[{index}] {type(one).__name__}"] = one
    combined = train_loaders(trainer)
    for index, loader in enumerate([] if combined is None else combined.flattened):
        for name in ("dataset", "sampler", "batch_sampler", "collate_fn"):
            roots[f"train_dataloader[{index}].{name}"] = getattr(loader, name, None)
    kinds = {type(one) for one in roots.values() if is_script_class(type(one))}
    for kind in sorted(kinds, key=lambda one: one.__qualname__):  # counters of classes and of the script's files
        roots[kind.__qualname__] = _plain_values(vars(kind))
        file = sys.modules[kind.__module__]
        roots[Path(getattr(file, "__file__", None) or kind.__module__).name] = _plain_values(vars(file))
    roots |= {f"schedulers[{i}]": one.scheduler for i, one in enumerate(trainer.lr_scheduler_configs)}
    roots["requires_grad"] = {name: str(one.requires_grad) for name, one in module.named_parameters()}
    return object_graph(**{key: value for key, value in roots.items() if value is not None})


def _plain_values(namespace: Mapping[str, Any]) -> dict[str, Any]:
    """Return the variables of a class or a file that hold data, rather than objects, functions and modules."""
    kinds = (bool, int, float, str, list, tuple, dict, set, collections.deque, np.ndarray, torch.Tensor, *GENERATORS)
    return {name: one for name, one in namespace.items() if isinstance(one, kinds) and not name.startswith("__")}


def _random_states() -> dict[str, str]:
    return {name: digest(state) for name, state in capture_random_states().items()}


def _settings(trainer: pl.Trainer) -> dict[str, str]:
    """Return the settings of the optimizers, such as the learning rate, and of the Trainer."""
    found = {
        f"optimizers[{number}].param_groups[{index}][{key!r}]": str(value)
        for number, optimizer in enumerate(trainer.optimizers)
        for index, group in enumerate(optimizer.param_groups)
        for key, value in group.items()
        if key != "params"
    }
    names = ("accumulate_grad_batches", "gradient_clip_val", "should_stop", "max_epochs")
    return found | {f"trainer.{name}": str(getattr(trainer, name)) for name in names}


def _metrics(trainer: pl.Trainer) -> dict[str, str]:
    def text(value: Any) -> str:
        return float(value).hex() if isinstance(value, torch.Tensor) and value.numel() == 1 else digest(value)

    return {name: text(value) for name, value in {**trainer.logged_metrics, **trainer.callback_metrics}.items()}
