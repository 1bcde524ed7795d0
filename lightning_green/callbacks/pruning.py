"""Pruning while training, with masks or by removing channels."""

from __future__ import annotations

import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from lightning_green._lightning.loggers import logging_step
from lightning_green.callbacks._compression import (
    TrainingLength,
    averages_weights,
    callbacks_of,
    optimizer_steps,
    put_in_order,
    refuse_sharded,
)
from lightning_green.compression.network import InputRecorder, TensorSpec, example_inputs, find_network, uncompiled
from lightning_green.compression.pruning.channel_pruner import ChannelPruner
from lightning_green.compression.pruning.channels import CHANNEL_CRITERIA
from lightning_green.compression.pruning.criteria import CRITERIA
from lightning_green.compression.pruning.granularity import Granularity
from lightning_green.compression.pruning.mask_pruner import MaskPruner
from lightning_green.compression.pruning.resizing import resize_to
from lightning_green.compression.schedules import SHAPES, Moment, Span
from lightning_green.run.loggers import log_to_all
from lightning_green.utilities.validation import check_choice, check_fraction, check_positive_int


class Pruning(Callback):
    r"""Train a model towards a target sparsity.

    ::

        trainer = Trainer(callbacks=[Pruning(0.8)])                                  # 80 % zeros, by magnitude
        trainer = Trainer(callbacks=[Pruning(granularity="2:4", begin=0.5)])         # for sparse tensor cores
        trainer = Trainer(callbacks=[Pruning(0.5, granularity="channels", round_to=8)])  # half of the parameters gone

    Masks live in this callback: the model keeps its parameters and names, its checkpoints load into the plain model,
    and a resumed training continues with the masks that it had. They are applied right after every optimizer step, to
    the weights and to their momentum. A masked model is as large and as fast as a dense one on most hardware; only
    removed channels make the rest of the training, and the model, cheaper.
    :func:`~lightning_green.compression.load_pruned` reads a checkpoint with removed channels.

    Logged when masks change and at the end of each epoch: ``pruning/sparsity`` and ``pruning/sparsity/<parameter>``,
    truly counted (channels: the fraction of the original parameters that is gone, and of each layer's channels). The
    first of them is in ``trainer.callback_metrics`` too, for callbacks that watch it.

    Args:
        target: Sparsity at the end, a fraction in [0, 1); or fractions by pattern (``{"encoder.*": 0.9}``; a
            parameter, a module or a shell pattern), which prunes those alone, each layer for itself. With channels,
            a number is the fraction of the network's *parameters* to be gone, fractions by pattern are of
            *channels*. Not needed for n:m, which says it itself.
        granularity: ``"unstructured"``, ``"n:m"`` such as ``"2:4"`` (layers whose input channels are no multiple of
            m stay dense), a block such as ``"4x1"`` (outputs x inputs), or ``"channels"``.
        criterion: What is dropped first: the smallest ``"magnitude"``, ``"gradient"`` times weight, ``"movement"``
            since the start of the training, or at ``"random"``. ``"rigl"`` is dynamic sparse training: as sparse as
            the target from ``begin`` on, with weights dropped by magnitude and grown by gradient until ``end``.
            Channels know ``"magnitude"`` and ``"random"``.
        schedule: ``"cubic"`` (Zhu and Gupta), ``"linear"``, ``"one_cycle"``, or ``"constant"`` (all at once);
            see :func:`~lightning_green.compression.sparsity_at`.
        begin: First moment: a fraction of the training (0.2) or the start of an epoch (``"3ep"``).
        end: Last moment, when the target is reached.
        every_n_steps: Optimizer steps between two moments. None for a fortieth of the span (channels: a quarter).
        scope: ``"global"`` compares weights of all layers (with RigL: shares the density out by ERK), ``"layer"``
            gives each layer the target. Only unstructured pruning and RigL can be global; blocks and n:m are per
            layer.
        include: Patterns of parameters to prune besides the weights of linear and convolutional layers.
        exclude: Patterns of parameters (with channels: of layers) to leave alone.
        model: With channels, the dotted path of the network. None for the only child with parameters.
        round_to: With channels, keep multiples of this many.
        total_steps: Optimizer steps of the whole training, where the Trainer cannot tell (``max_epochs=-1``).
        seed: Seed of ``"random"``.

    Raises:
        TypeError: If a number is something else.
        ValueError: If an argument is out of its range or does not go with another; in ``setup``, if a pattern
            matches nothing or the strategy cannot be used (sharded parameters; channels with several processes or
            with ``WeightAveraging``); when it happens, if a target of channels cannot be reached.
        ModuleNotFoundError: With channels, without the extra ``compression``.

    """

    compression_order = 0

    def __init__(
        self,
        target: float | dict[str, float] | None = None,
        granularity: str = "unstructured",
        criterion: str = "magnitude",
        schedule: str = "cubic",
        begin: float | str = 0.0,
        end: float | str = 0.7,
        every_n_steps: int | None = None,
        scope: str = "global",
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        model: str | None = None,
        round_to: int = 1,
        total_steps: int | None = None,
        seed: int = 0,
    ) -> None:
        self.granularity = Granularity.parse(granularity)
        channels = self.granularity.kind == "channels"
        check_choice("criterion", criterion, CHANNEL_CRITERIA if channels else (*CRITERIA, "rigl"))
        check_choice("schedule", schedule, SHAPES)
        check_choice("scope", scope, ("global", "layer"))
        for name, value in (("every_n_steps", every_n_steps), ("total_steps", total_steps), ("round_to", round_to)):
            if value is not None:
                check_positive_int(name, value)
        self.target = _check_target(target, self.granularity)
        self.begin, self.end = Moment.parse("begin", begin), Moment.parse("end", end)
        if self.begin.in_epochs == self.end.in_epochs and self.end.value < self.begin.value:
            raise ValueError(f"`end` should not come before `begin` ({begin!r}), got {end!r}.")
        if criterion == "rigl" and self.granularity.kind != "unstructured":
            raise ValueError(f"`granularity` should be 'unstructured' with criterion 'rigl', got {granularity!r}.")
        if channels and include:
            raise ValueError(f"`include` should be empty with granularity 'channels', got {include!r}.")
        self.criterion, self.schedule, self.scope = criterion, schedule, scope
        self.every_n_steps, self.total_steps = every_n_steps, total_steps
        self.include, self.exclude, self.model, self.seed = tuple(include), tuple(exclude), model, seed
        self.masks: MaskPruner | None = None
        self.round_to = round_to
        self.channels: ChannelPruner | None = self._channel_pruner() if channels else None
        self.span: Span | None = None
        self._module: weakref.ref[pl.LightningModule] | None = None
        self._sizes: dict[str, Any] = {}
        self._last_step = -1
        self._inputs: list[TensorSpec] | None = None
        self._recorder: InputRecorder | None = None
        self._handles: list[RemovableHandle] = []
        self._changed = False

    @property
    @override
    def state_key(self) -> str:
        return f"Pruning[{'channels' if self.channels else 'masks'}]"

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        refuse_sharded(trainer, type(self).__name__)
        put_in_order(trainer)
        if self.channels is not None:
            self._setup_channels(trainer, pl_module)
        elif self.masks is None or not _holds(pl_module, self.masks):
            self.masks = MaskPruner(
                pl_module,
                self.target,
                self.granularity,
                self.criterion,
                self.schedule,
                self.scope,
                self.include,
                self.exclude,
                self.seed,
            )
            self._last_step = -1

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.masks is not None:
            self.masks.masked.masks = self.masks.masked.masks  # the parameters may be on another device now
            self.masks.apply()

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.span = self._span(trainer)
        if self.masks is not None:
            masks = self.masks

            def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
                masks.apply(optimizer)

            self._handles += [optimizer.register_step_post_hook(after_step) for optimizer in trainer.optimizers]

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = optimizer_steps(trainer)
        between_windows = batch_idx % trainer.accumulate_grad_batches == 0  # else gradients would be lost
        if self.channels is not None and between_windows and self._is_due(step):
            self._remove_channels(trainer, pl_module, self.channels, step)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        if self.masks is None:
            return
        assert self.span is not None
        step = optimizer_steps(trainer)
        if self.criterion == "movement" and step <= self.span.end:
            self.masks.accumulate_movement(optimizer)
        if self._is_due(step) and self.masks.can_update():  # else it is made up for at the next step
            lost = self.masks.update(self.span.progress(step))
            if trainer.world_size > 1:  # equal anyway as long as weights and gradients are; now by construction
                self.masks.masked.masks = trainer.strategy.broadcast(self.masks.masked.masks)
            if lost:
                rank_zero_warn(f"Pruning took all weights of {', '.join(lost)}; use `scope='layer'` or `exclude`.")
            self._last_step, self._changed = step, True

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._changed:
            self._changed = False
            total = self._log_sparsity(trainer, pl_module, logging_step(trainer))
            pl_module.log("pruning/sparsity", total, on_step=True, on_epoch=False, logger=False)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        total = self._log_sparsity(trainer, pl_module, logging_step(trainer) - 1)  # the row of Lightning's means
        pl_module.log("pruning/sparsity", total, sync_dist=True, logger=False)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.masks is not None:
            self.masks.apply()  # once more: an average of the weights may have been put in their place

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.masks is None or not averages_weights(trainer):
            return
        state = checkpoint["state_dict"]  # of averaged weights, which are not zero where the live ones are
        for name, mask in self.masks.masked.masks.items():
            if name in state:
                state[name] = state[name] * mask.to(state[name].device, state[name].dtype)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if self._recorder is not None:
            self._seen_inputs()
            self._recorder.close()
            self._recorder = None
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    @override
    def state_dict(self) -> dict[str, Any]:
        pruner = self.channels or self.masks
        return {
            "pruner": pruner.state_dict() if pruner is not None else {},
            "last_step": self._last_step,
            "inputs": self._seen_inputs(),
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._last_step = state_dict["last_step"]
        self._inputs = state_dict["inputs"]
        pruner = self.channels or self.masks
        if pruner is not None and state_dict["pruner"]:
            pruner.load_state_dict(state_dict["pruner"])
        if self.masks is not None:
            self.masks.apply()

    def sparsity(self, pl_module: pl.LightningModule) -> dict[str, float]:
        """Return what is logged: the sparsity of everything that is pruned, and of each parameter."""
        if self.channels is not None:
            counted = self.channels.sparsity(uncompiled(find_network(pl_module, self.model)))
        else:
            assert self.masks is not None
            counted = self.masks.sparsity()
        return {f"pruning/sparsity{'/' if name else ''}{name}": value for name, value in counted.items()}

    def _log_sparsity(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> float:
        """Send what :meth:`sparsity` says to the loggers and return the sparsity of everything.

        Not by `self.log`, which makes a metric of each name and waits for the Trainer's next row.
        """
        counted = self.sparsity(pl_module)
        log_to_all(trainer, counted, step)
        return counted["pruning/sparsity"]

    def _setup_channels(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1 or isinstance(trainer.strategy, DDPStrategy):
            raise ValueError(
                "`granularity` 'channels' replaces parameters, which DDP would not notice: it should train on one "
                f"device, got {type(trainer.strategy).__name__} with {trainer.world_size} processes."
            )
        if any(isinstance(c, Pruning) and c.channels is None for c in callbacks_of(trainer)):
            raise ValueError(
                "`granularity` 'channels' should not go with masks in one training: the masks would not fit any more; "
                "prune channels first, and the smaller model with masks in a second training."
            )
        if averages_weights(trainer):
            raise ValueError(
                "`granularity` 'channels' should not go with WeightAveraging: its copy keeps all channels."
            )
        if self._module is None or self._module() is not pl_module:  # not a second stage of the same training
            self._module = weakref.ref(pl_module)
            self._sizes = {name: p.shape for name, p in pl_module.named_parameters()}
            self.channels, self._inputs, self._last_step = self._channel_pruner(), None, -1
        self._recorder = InputRecorder(find_network(pl_module, self.model))

        def before_load(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
            if _is_smaller(
                state, self._sizes, prefix
            ):  # else it is another model's checkpoint, and fails to load as usual
                resize_to(module, state, prefix)

        hook = pl_module.register_load_state_dict_pre_hook(before_load)  # type: ignore[no-untyped-call]
        self._handles.append(hook)

    def _channel_pruner(self) -> ChannelPruner:
        return ChannelPruner(self.target, self.criterion, self.schedule, self.exclude, self.round_to, self.seed)

    def _span(self, trainer: pl.Trainer) -> Span:
        length = TrainingLength.of(trainer, self.total_steps)
        begin, end = length.step(self.begin), length.step(self.end)
        if end < begin:
            raise ValueError(
                f"`end` should not come before `begin`: they are steps {end} and {begin} of {length.steps}."
            )
        end = max(0, min(end, length.steps - 1))  # a moment after the last step would never come
        every = self.every_n_steps or max(1, math.ceil((end - begin) / (4 if self.channels else 40)))
        return Span(min(begin, end), end, every)

    def _is_due(self, step: int) -> bool:
        assert self.span is not None
        return self.span.latest(step) > self._last_step

    def _seen_inputs(self) -> list[TensorSpec] | None:
        if self._inputs is None and self._recorder is not None:
            self._inputs = self._recorder.spec
        return self._inputs

    def _remove_channels(self, trainer: pl.Trainer, pl_module: nn.Module, pruner: ChannelPruner, step: int) -> None:
        assert self.span is not None
        if self._recorder is not None and self._recorder.problem:
            raise ValueError(self._recorder.problem)
        inputs = self._seen_inputs()
        if inputs is None:  # not called yet: the first batch will show how, and the moment is made up for after it
            return
        network = uncompiled(find_network(pl_module, self.model))
        device = next(network.parameters()).device
        pruner.update(network, example_inputs(inputs, device, batch=1), self.span.progress(step), trainer.optimizers)
        self._last_step, self._changed = step, True


def _check_target(target: float | dict[str, float] | None, granularity: Granularity) -> float | dict[str, float]:
    implied = 1 - granularity.first / granularity.second
    if isinstance(target, Mapping):
        if not target:
            raise ValueError("`target` should name at least one pattern, got {}.")
        return {str(p): check_fraction(f"target[{p!r}]", v, below_one=True) for p, v in target.items()}
    if target is None:
        if granularity.kind != "n:m":
            raise ValueError("`target` should be the fraction to prune, in [0, 1), got None.")
        return implied
    value = check_fraction("target", target, below_one=True)
    if granularity.kind == "n:m" and not math.isclose(value, implied):
        pattern = f"{granularity.first}:{granularity.second}"
        raise ValueError(f"`target` should be left out or be {implied:g} with granularity {pattern!r}, got {target!r}.")
    return value


def _holds(module: nn.Module, pruner: MaskPruner) -> bool:
    known = {id(p) for p in module.parameters()}
    return all(id(p) in known for p in pruner.masked.parameters.values())


def _is_smaller(state: Mapping[str, Tensor], sizes: Mapping[str, Any], prefix: str) -> bool:
    """Return whether no tensor of a state is larger than the model's in any dimension."""
    pairs = ((state[prefix + name].shape, size) for name, size in sizes.items() if prefix + name in state)
    return all(len(a) == len(b) and all(x <= y for x, y in zip(a, b, strict=True)) for a, b in pairs)
