"""A student that learns from a teacher's answers."""

from __future__ import annotations

import functools
import hashlib
import random
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import IterableDataset
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from lightning_green.callbacks._compression import TrainingLength, callbacks_of, optimizer_steps, put_in_order
from lightning_green.callbacks.emissions_tracker import EmissionsTracker
from lightning_green.compression.distillation import losses as losses_of
from lightning_green.compression.distillation.adapters import Adapters
from lightning_green.compression.distillation.teacher_cache import TeacherCache
from lightning_green.compression.distillation.teachers import load_teacher
from lightning_green.compression.network import find_network, positional, uncompiled
from lightning_green.compression.schedules import Ramp
from lightning_green.utilities.validation import check_choice

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
LOSSES = (*losses_of.OUTPUT_LOSSES, *losses_of.FEATURE_LOSSES)
_DEFAULT_WEIGHTS = {"standardized": 4.0}
_TEMPERATURES = {"standardized": 2.0, "soft_targets": 4.0, "decoupled": 4.0}


class KnowledgeDistillation(Callback):
    r"""Add to the loss how far the student is from its teacher.

    ::

        Trainer(callbacks=[KnowledgeDistillation(teacher)])                        # logits, standardized
        Trainer(callbacks=[KnowledgeDistillation(teacher, cache="memory")])        # asked once per image
        Trainer(callbacks=[KnowledgeDistillation(
            teacher, {"soft_targets": 1.0, "hint": Ramp(1.0, 0.0)}, layers={"layer2": "stage2"})])

    The teacher is called with what the student's network was called with in ``training_step``. It is held by this
    callback, so it is in no checkpoint and no optimizer; it runs in inference mode and evaluation mode. Any
    ``training_step`` that returns a loss works.

    With a cache, an input with the same content is answered without the teacher, so every augmentation that is
    repeated is asked for once. Random views that are not seeded never repeat: they are refused, before the training
    where the data set shows it, else in the second epoch.

    Logged: ``distillation/<loss>`` at each step; at the end of an epoch, with a cache, ``distillation/cache_hits``
    (fraction of the samples so far), ``distillation/saved_teacher_seconds``, and with an ``EmissionsTracker``
    ``distillation/saved_kwh_modelled``: those seconds at the run's mean power.

    Args:
        teacher: A module, a callable, or the path of a checkpoint, which is loaded into ``teacher_model``.
        losses: Weight of each loss by name, numbers or schedules (:class:`~lightning_green.compression.Ramp`):
            ``"standardized"`` (the default), ``"soft_targets"``, ``"decoupled"``, ``"relational"``, and of the
            features of ``layers``: ``"hint"``, ``"attention"``.
        layers: Dotted paths inside the student's network to dotted paths inside the teacher.
        temperature: Of the losses of logits, a number or a schedule. None for each one's own (2 standardized, else 4).
        task_weight: Weight of the loss that ``training_step`` returns, a number or a schedule.
        model: Dotted path of the student's network. None for the only child with parameters.
        student_output: Returns the logits from what the network returned. None where it is them.
        teacher_output: The same for the teacher. None for ``student_output``.
        target: Returns the classes of a batch, for ``"decoupled"``. None for ``batch[1]``.
        teacher_model: The architecture of a teacher that is a checkpoint.
        precision: In which the teacher computes: ``"32"``, ``"bf16"`` or ``"16"``.
        cache: ``"memory"``, or a folder for outputs that should outlive the process. None asks the teacher each time.
        total_steps: Optimizer steps of the whole training, where the Trainer cannot tell and a schedule needs it.

    Raises:
        TypeError: If the teacher is none of the three.
        ValueError: If an argument is out of its range or does not go with another; in ``setup``, if a path does not
            exist; in training, if the teacher has another number of classes, ``training_step`` returns no loss, or
            views are random.

    """

    compression_order = 2

    def __init__(
        self,
        teacher: nn.Module | Callable[..., Any] | str | Path,
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
    ) -> None:
        self.teacher = load_teacher(teacher, teacher_model)
        chosen = _DEFAULT_WEIGHTS if losses is None else {losses: 1.0} if isinstance(losses, str) else dict(losses)
        if not chosen:
            raise ValueError("`losses` should name at least one loss, got {}.")
        for name, weight in chosen.items():
            check_choice("losses", name, LOSSES)
            if not isinstance(weight, Ramp) and not weight >= 0:
                raise ValueError(f"`losses[{name!r}]` should be a weight of at least 0 or a Ramp, got {weight!r}.")
        if temperature is not None and not isinstance(temperature, Ramp) and not temperature > 0:
            raise ValueError(f"`temperature` should be above 0, got {temperature!r}.")
        check_choice("precision", precision, list(PRECISIONS))
        self.layers = dict(layers or {})
        of_features = [name for name in chosen if name in losses_of.FEATURE_LOSSES]
        if of_features and not self.layers:
            raise ValueError(f"`layers` should say whose features {', '.join(of_features)} compares, got none.")
        if self.layers and not of_features:
            raise ValueError("`layers` are for the losses 'hint' and 'attention', but `losses` has neither.")
        if self.layers and not isinstance(self.teacher, nn.Module):
            raise ValueError("`teacher` should be a module where `layers` are compared; a callable has none.")
        if cache is not None and self.layers:
            raise ValueError("`cache` keeps outputs, not features: leave `layers` out, or set it to None.")
        self.losses, self.temperature, self.task_weight = chosen, temperature, task_weight
        self.model, self.precision, self.total_steps = model, precision, total_steps
        self._student_output = student_output or _identity
        self._teacher_output = teacher_output or self._student_output
        self._target = target or _second
        self._cache_at = cache
        self.cache: TeacherCache | None = None
        self.adapters = Adapters()
        self._inputs: tuple[Any, ...] | None = None
        self._output: Any = None
        self._features: dict[str, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        self._steps = 0
        self._seconds, self._asked = 0.0, 0

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        put_in_order(trainer)
        network = find_network(pl_module, self.model)
        self._handles = [network.register_forward_hook(self._remember(network), with_kwargs=True)]
        for ours, theirs in self.layers.items():
            assert isinstance(self.teacher, nn.Module)
            watched = find_network(uncompiled(network), ours, "layers")
            self._handles.append(watched.register_forward_hook(self._keep(watched, f"student:{ours}")))
            taught = find_network(self.teacher, theirs, "layers")
            self._handles.append(taught.register_forward_hook(self._keep(taught, f"teacher:{theirs}")))
        if self._cache_at is not None and self.cache is None:
            folder = None if self._cache_at == "memory" else Path(self._cache_at) / f"rank-{trainer.global_rank}"
            self.cache = TeacherCache(folder, _identity_of(self.teacher))
        original = pl_module.training_step

        @functools.wraps(original)  # Lightning looks at the signature, and follows `__wrapped__`
        def training_step(*args: Any, **kwargs: Any) -> Any:
            self._inputs, self._output = None, None
            result = original(*args, **kwargs)
            return self._add(trainer, pl_module, result, args[0] if args else next(iter(kwargs.values())))

        pl_module.training_step = training_step  # type: ignore[method-assign]

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if isinstance(self.teacher, nn.Module):
            self.teacher.to(pl_module.device).eval().requires_grad_(False)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        scheduled = [*self.losses.values(), self.temperature, self.task_weight]
        if any(isinstance(value, Ramp) for value in scheduled):
            self._steps = TrainingLength.of(trainer, self.total_steps).steps
        if self.cache is not None:
            _refuse_random_views(trainer)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        self.adapters.step()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.cache is None:
            return
        seen = self.cache.hits + self.cache.misses
        saved = self.saved_seconds()
        pl_module.log("distillation/cache_hits", self.cache.hits / max(1, seen), sync_dist=True)
        pl_module.log("distillation/saved_teacher_seconds", saved, sync_dist=True)
        for callback in callbacks_of(trainer):
            if isinstance(callback, EmissionsTracker):
                totals = callback.summary()
                hours = totals.get("carbon/elapsed_hours") or 0.0
                kwh = totals["energy/kwh"] / hours * saved / 3600 if hours > 0 else 0.0
                kwh = trainer.strategy.broadcast(kwh)  # of rank 0, which has the energy
                pl_module.log("distillation/saved_kwh_modelled", kwh, sync_dist=True)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.cache is not None:
            rank_zero_info(
                f"The teacher was asked for {self.cache.misses} of {self.cache.hits + self.cache.misses} samples; the "
                f"cache saved {self.saved_seconds():.1f} s of its time."
            )

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        if stage == "fit":
            pl_module.__dict__.pop("training_step", None)
            self._inputs, self._output = None, None
            self._features.clear()

    @override
    def state_dict(self) -> dict[str, Any]:
        cache = {} if self.cache is None else self.cache.state_dict()
        counts = {} if self.cache is None else {"hits": self.cache.hits, "misses": self.cache.misses}
        return {"adapters": self.adapters.state_dict(), "cache": cache, "counts": counts}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.adapters.load_state_dict(state_dict["adapters"])
        if self.cache is not None:
            self.cache.load_state_dict(state_dict["cache"])
            self.cache.hits = state_dict["counts"].get("hits", 0)
            self.cache.misses = state_dict["counts"].get("misses", 0)

    def saved_seconds(self) -> float:
        """Return the teacher's time that the cache has saved so far: its mean time per sample, times the hits."""
        if self.cache is None or not self._asked:
            return 0.0
        return self._seconds / self._asked * self.cache.hits

    # Hooks are functions, not methods: a deep copy of the network keeps them without copying this callback and its
    # teacher. The copy's calls are none of the student's.
    def _remember(self, network: nn.Module) -> Callable[..., None]:
        watched = weakref.ref(network)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if module is watched():
                self._inputs, self._output = positional(uncompiled(module), args, kwargs), output

        return hook

    def _keep(self, layer: nn.Module, key: str) -> Callable[..., None]:
        watched = weakref.ref(layer)

        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if module is watched():
                self._features[key] = output

        return hook

    def _add(self, trainer: pl.Trainer, pl_module: pl.LightningModule, result: Any, batch: Any) -> Any:
        """Return what ``training_step`` returned, with the distance to the teacher in its loss."""
        if result is None and pl_module.automatic_optimization:
            return None  # the step is skipped
        loss = result.get("loss") if isinstance(result, Mapping) else result
        if not isinstance(loss, Tensor):
            raise ValueError(
                f"`training_step` of {type(pl_module).__name__} should return a loss to be distilled, got "
                f"{type(result).__name__}; with manual optimization, add the losses of "
                "lightning_green.compression.distillation.losses there."
            )
        if self._inputs is None:
            raise ValueError(
                "`model` should be the network that training_step calls, but it was not called: the student's "
                "outputs are unknown."
            )
        progress = optimizer_steps(trainer) / self._steps if self._steps else 0.0
        student = self._student_output(self._output)
        teacher = self._ask(trainer, self._inputs)
        if student.shape != teacher.shape and set(self.losses) - {"relational", *losses_of.FEATURE_LOSSES}:
            raise ValueError(
                f"`teacher` should have the student's outputs {tuple(student.shape)}, got {tuple(teacher.shape)}: "
                "another number of classes cannot be compared; use `teacher_output`, or losses of features."
            )
        total = _at(self.task_weight, progress) * loss
        for name, weight in self.losses.items():
            value = self._loss(name, student, teacher, batch, progress)
            pl_module.log(f"distillation/{name}", value.detach())
            total = total + _at(weight, progress) * value
        return {**result, "loss": total} if isinstance(result, Mapping) else total

    def _loss(self, name: str, student: Tensor, teacher: Tensor, batch: Any, progress: float) -> Tensor:
        if name in losses_of.FEATURE_LOSSES:
            parts = []
            for ours, theirs in self.layers.items():
                mine, taught = self._features[f"student:{ours}"], self._features[f"teacher:{theirs}"].clone()
                if name == "hint":
                    mine = self.adapters.adapt(ours, mine, taught.shape[1])
                    parts.append(losses_of.hint(mine, taught))
                else:
                    parts.append(losses_of.attention(mine, taught))
            return torch.stack(parts).mean()
        if name == "relational":
            return losses_of.relational(student, teacher)
        temperature = _TEMPERATURES[name] if self.temperature is None else _at(self.temperature, progress)
        if name == "decoupled":
            return losses_of.decoupled(student, teacher, self._target(batch), temperature)
        function = losses_of.standardized if name == "standardized" else losses_of.soft_targets
        return function(student, teacher, temperature)

    def _ask(self, trainer: pl.Trainer, inputs: tuple[Any, ...]) -> Tensor:
        """Return the teacher's logits, as a tensor that a loss may keep for its gradient."""
        if self.cache is None:
            return self._forward(*inputs).clone()
        if len(inputs) != 1:
            raise ValueError(f"`cache` needs a network with one input, got {len(inputs)}; set it to None.")
        output = self.cache.get(inputs[0], self._forward)
        last = min(10, int(trainer.num_training_batches)) - 1
        if trainer.current_epoch >= 1 and trainer.fit_loop.epoch_loop.batch_idx >= last and self.cache.hits == 0:
            raise ValueError(_RANDOM)
        return output

    def _forward(self, *inputs: Any) -> Tensor:
        device = inputs[0].device
        dtype = PRECISIONS[self.precision]
        start = time.perf_counter()
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            output = self._teacher_output(self.teacher(*inputs))
        if device.type == "cuda" and self._asked < 10_000:
            torch.cuda.synchronize(device)
        self._seconds += time.perf_counter() - start
        self._asked += len(inputs[0])
        return output.float()


_RANDOM = (
    "`cache` should be None, because the views are random and not seeded: an input is never the same twice, so the "
    "teacher's answer to it cannot be used again. Seed the augmentation by the sample's index, or do without a cache."
)


def _refuse_random_views(trainer: pl.Trainer) -> None:
    """Raise where the data set gives another tensor for the same index; no random generator is left changed."""
    dataset = getattr(trainer.train_dataloader, "dataset", None)
    # Every `IterableDataset` has a `__getitem__`, which only raises.
    by_index = hasattr(dataset, "__getitem__") and not isinstance(dataset, IterableDataset)
    if dataset is None or not (by_index and hasattr(dataset, "__len__")) or not len(dataset):
        return  # a stream shows it in the second epoch
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        first, second = (_tensors(dataset[0]) for _ in range(2))
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
    if any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, second, strict=True)):
        raise ValueError(_RANDOM)


def _tensors(item: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(item)
    return [torch.as_tensor(leaf) for leaf in leaves if isinstance(leaf, (Tensor, np.ndarray))]


def _identity_of(teacher: Any) -> str:
    """Return a hash of a teacher's weights; callables are known by their name alone."""
    if not isinstance(teacher, nn.Module):
        return str(getattr(teacher, "__qualname__", type(teacher).__qualname__))
    digest = hashlib.sha256()
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _at(value: float | Ramp, progress: float) -> float:
    return value(progress) if isinstance(value, Ramp) else value


def _identity(output: Any) -> Any:
    return output


def _second(batch: Any) -> Any:
    return batch[1]
