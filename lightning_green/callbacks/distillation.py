"""Knowledge distillation: a student is trained with the outputs of a teacher."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_green._lightning.training_steps import unwrap_training_step, wrap_training_step
from lightning_green.callbacks import _random_views
from lightning_green.callbacks._compression import (
    CompressionCallback,
    TrainingLength,
    callbacks_of,
    optimizer_steps,
    put_in_order,
)
from lightning_green.callbacks.emissions_tracker import EmissionsTracker
from lightning_green.compression.distillation.forward_recorder import ForwardRecorder
from lightning_green.compression.distillation.teacher_cache import TeacherCache
from lightning_green.compression.distillation.teacher_outputs import TeacherOutputs
from lightning_green.compression.distillation.teachers import Ensemble, Teacher, load_teacher
from lightning_green.compression.distillation.weighted_losses import WeightedLosses, at
from lightning_green.compression.network import find_network
from lightning_green.compression.outputs import logits_of
from lightning_green.compression.schedules import Ramp

_DEFAULT_WEIGHTS = {"standardized": 4.0}


class KnowledgeDistillation(CompressionCallback):
    r"""Add the distance between the student's and a teacher's outputs to the loss.

    The teacher receives the arguments of the student's network in the last call with gradients of ``training_step``.
    It belongs to this callback, so it is in no checkpoint and no optimizer, and it runs in inference mode and
    evaluation mode. Any ``training_step`` that returns a loss is supported.

    With a cache, the teacher computes each distinct input once; later outputs are looked up by the content of the
    input. Random views that are not seeded never repeat. They are rejected, before the training if the data set
    reveals them, otherwise in the second epoch.

    Logged at each step: ``distillation/<loss>``. Logged at the end of each epoch, with a cache:
    ``distillation/cache_hits`` (fraction of the samples so far), ``distillation/saved_teacher_seconds``, and with an
    ``EmissionsTracker`` ``distillation/saved_kwh_modelled``, those seconds at the run's mean power.

    Args:
        teacher: A module, a callable, the path of a checkpoint, which is loaded into ``teacher_model``, or several
            modules and callables, whose logits are averaged.
        losses: Weight of each loss by name, a number or a schedule (``Ramp``):
            ``"standardized"`` (the default), ``"soft_targets"``, ``"decoupled"``, ``"relational"``; and for the
            features of ``layers``, ``"hint"`` and ``"attention"``.
        layers: Dotted paths inside the student's network to dotted paths inside the teacher.
        temperature: Temperature of the losses of logits, a number or a schedule. None for each loss's default (2 for
            ``"standardized"``, otherwise 4).
        task_weight: Weight of the loss that ``training_step`` returns, a number or a schedule.
        model: Dotted path of the student's network. None for the only child with parameters, ``""`` for the module
            itself.
        student_output: Returns the logits from the network's return value. None for a tensor, the item or attribute
            ``logits`` of a dictionary or a dataclass, or the only tensor in a container that is not a scalar.
        teacher_output: Returns the logits from the teacher's return value. None for ``student_output``.
        target: Returns the classes of a batch, for ``"decoupled"``. None for ``batch[1]``, or ``batch["labels"]`` of a
            dictionary.
        teacher_model: Architecture of a teacher that is a checkpoint.
        precision: Precision of the teacher: ``"32"``, ``"bf16"`` or ``"16"``.
        cache: ``"memory"``, or a directory that keeps the outputs after the process ends. None for no cache.
        total_steps: Optimizer steps of the whole training, if a schedule needs it and the Trainer cannot compute it.
        channel_dim: Dimension of classes in outputs and of channels in features with three or more dimensions: 1, as
            in image networks, or -1, as in transformers. None for 1, except for tensors with three dimensions, which
            need a value.

    Raises:
        TypeError: If the teacher is not a module, a callable or a path.
        ValueError: If an argument is out of range or incompatible with another; in ``setup``, if a path does not
            exist; before the first step, if the teacher does not accept the arguments or has another number of
            classes, ``training_step`` returns no loss, or an output needs another argument; in training, if views are
            random.

    Examples:
        ```python
        Trainer(callbacks=[KnowledgeDistillation(teacher)])                        # standardized logits
        Trainer(callbacks=[KnowledgeDistillation(teacher, cache="memory")])        # computed once per image
        Trainer(callbacks=[KnowledgeDistillation(
            teacher, {"soft_targets": 1.0, "hint": Ramp(1.0, 0.0)}, layers={"layer2": "stage2"})])
        ```

    """

    compression_order = 2

    def __init__(
        self,
        teacher: Teacher | str | Path | Sequence[Teacher],
        losses: str | Mapping[str, float | Ramp] | None = None,
        layers: Mapping[str, str] | None = None,
        temperature: float | Ramp | None = None,
        task_weight: float | Ramp = 1.0,
        model: str | None = None,
        student_output: Callable[[Any], Tensor] | None = None,
        teacher_output: Callable[[Any], Tensor] | None = None,
        target: Callable[[Any], Tensor] | None = None,
        teacher_model: nn.Module | None = None,
        precision: str = "32",
        cache: str | Path | None = None,
        total_steps: int | None = None,
        channel_dim: int | None = None,
    ) -> None:
        super().__init__(locals())
        loaded = load_teacher(teacher, teacher_model)
        weights = _DEFAULT_WEIGHTS if losses is None else {losses: 1.0} if isinstance(losses, str) else losses
        self.losses = WeightedLosses(weights, layers or {}, temperature, target or _classes, channel_dim)
        if self.losses.layers and (not isinstance(loaded, nn.Module) or isinstance(loaded, Ensemble)):
            raise ValueError("`teacher` should be one module if `layers` are compared.")
        if cache is not None and self.losses.layers:
            raise ValueError("`cache` stores outputs, not features. Set it to None, or remove `layers`.")
        self._student_output = student_output or functools.partial(logits_of, argument="student_output")
        of_teacher = teacher_output or student_output or functools.partial(logits_of, argument="teacher_output")
        self.teacher = TeacherOutputs(loaded, of_teacher, precision)
        self.task_weight, self.model, self.total_steps = task_weight, model, total_steps
        self._cache_location = cache
        self._recorder = ForwardRecorder()
        self._steps = 0

    @property
    def cache(self) -> TeacherCache | None:
        """The cache of the teacher's outputs; None before ``setup`` or without a cache."""
        return self.teacher.cache

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        put_in_order(trainer)
        self._recorder.attach(find_network(pl_module, self.model), self.teacher.teacher, self.losses.layers)
        if self._cache_location is not None and self.cache is None:
            self.teacher.open_cache(self._cache_location, trainer.global_rank)

        def add_losses(result: Any, batch: Any) -> Any:
            return self._add_losses(trainer, pl_module, result, batch)

        wrap_training_step(pl_module, self._recorder.clear, add_losses)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self.teacher.prepare(pl_module.device, pl_module)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.losses.is_scheduled() or isinstance(self.task_weight, Ramp):
            self._steps = TrainingLength.of(trainer, self.total_steps).steps
        if self.cache is not None:
            _random_views.check_dataset(trainer)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        self.losses.adapters.step()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        if self.cache is None:
            return
        samples = self.cache.hits + self.cache.misses
        saved = self.saved_seconds()
        pl_module.log("distillation/cache_hits", self.cache.hits / max(1, samples), sync_dist=True)
        pl_module.log("distillation/saved_teacher_seconds", saved, sync_dist=True)
        for callback in callbacks_of(trainer):
            if isinstance(callback, EmissionsTracker):
                kwh = trainer.strategy.broadcast(_modelled_kwh(callback.summary(), saved))  # only rank 0 has the energy
                if kwh is not None:
                    pl_module.log("distillation/saved_kwh_modelled", kwh, sync_dist=True)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self.cache is not None:
            rank_zero_info(
                f"The teacher computed {self.cache.misses} of {self.cache.hits + self.cache.misses} samples. The cache "
                f"saved {self.saved_seconds():.1f} s of its time."
            )

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._detach(pl_module)  # Lightning calls no `teardown` then

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        if stage == "fit":
            self._detach(pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        adapters = self.losses.adapters.state_dict()
        return {**super().state_dict(), "adapters": adapters, **self.teacher.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.losses.adapters.load_state_dict(state_dict["adapters"])
        self.teacher.load_state_dict(state_dict)

    def saved_seconds(self) -> float:
        """Return the teacher's computation time that the cache has saved: mean time per sample, times the hits."""
        return self.teacher.saved_seconds()

    def _detach(self, pl_module: pl.LightningModule) -> None:
        self._recorder.close()
        unwrap_training_step(pl_module)

    def _add_losses(self, trainer: pl.Trainer, pl_module: pl.LightningModule, result: Any, batch: Any) -> Any:
        """Return the result of ``training_step`` with the weighted losses added to its loss."""
        if result is None and pl_module.automatic_optimization:
            return None  # the module skips the step
        loss = result.get("loss") if isinstance(result, Mapping) else result
        if not isinstance(loss, Tensor):
            raise ValueError(
                f"`training_step` of {type(pl_module).__name__} should return a loss to be distilled, got "
                f"{type(result).__name__}. With manual optimization, add the losses of "
                "lightning_green.compression.distillation.losses in `training_step`."
            )
        if self._recorder.arguments is None:
            raise ValueError(
                "`model` should be the network that training_step calls, but it was not called with gradients, so the "
                "student's outputs are unknown."
            )
        args, kwargs = self._recorder.arguments
        student, teacher = self._student_output(self._recorder.output), self.teacher.logits(args, kwargs)
        if self.cache is not None:
            _random_views.check_hits(trainer, self.cache.hits)
        if student.shape != teacher.shape and self.losses.compare_classes():
            raise ValueError(
                f"`teacher` should have the student's outputs {tuple(student.shape)}, got {tuple(teacher.shape)}. "
                "Outputs with different numbers of classes cannot be compared: set `teacher_output`, or use losses of "
                "features."
            )
        progress = optimizer_steps(trainer) / self._steps if self._steps else 0.0
        total = at(self.task_weight, progress) * loss
        features = self._recorder.student, self._recorder.teacher
        for name, weight, value in self.losses.values((student, teacher), features, batch, progress):
            pl_module.log(f"distillation/{name}", value.detach())
            total = total + weight * value
        return {**result, "loss": total} if isinstance(result, Mapping) else total


def _classes(batch: Any) -> Any:
    """Return the classes of a batch in one of the usual forms."""
    if isinstance(batch, Mapping) and "labels" in batch:
        return batch["labels"]
    if isinstance(batch, Sequence) and len(batch) > 1:
        return batch[1]
    keys = f" with {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else ""
    raise ValueError(
        "`target` should be a function that returns the classes from the batch, which is a "
        f"{type(batch).__name__}{keys}."
    )


def _modelled_kwh(totals: Mapping[str, Any], seconds: float) -> float | None:
    """Return the energy of ``seconds`` at the run's mean power; None if its energy is unknown."""
    kwh, hours = totals["energy/kwh"], totals["carbon/elapsed_hours"]
    return kwh / hours * seconds / 3600 if kwh is not None and hours else None
