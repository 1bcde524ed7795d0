"""Pruning during training, with masks or by removing channels."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer
from typing_extensions import override

from lightning_green._lightning.loggers import logging_step
from lightning_green.callbacks._channel_removal import ChannelRemoval
from lightning_green.callbacks._compression import (
    CompressionCallback,
    callbacks_of,
    optimizer_steps,
    put_in_order,
    refuse_sharded,
)
from lightning_green.callbacks._mask_pruning import MaskPruning
from lightning_green.callbacks._update_schedule import UpdateSchedule
from lightning_green.compression.pruning.channel_pruner import ChannelPruner
from lightning_green.compression.pruning.channels import CHANNEL_CRITERIA
from lightning_green.compression.pruning.criteria import CRITERIA
from lightning_green.compression.pruning.granularity import Granularity
from lightning_green.compression.pruning.mask_pruner import MaskPruner
from lightning_green.compression.schedules import SHAPES, Moment
from lightning_green.run.loggers import log_to_all
from lightning_green.utilities.validation import check_choice, check_fraction, check_positive_int


class Pruning(CompressionCallback):
    r"""Train a model towards a target sparsity.

    Masks are stored in this callback. The model keeps its parameters and names, its checkpoints load into the plain
    model, and a resumed training continues with the same masks. Masks are applied after every optimizer step, to
    weights and momentum. On most hardware a masked model is as large and as fast as a dense one. Removed channels make
    the rest of the training and the model cheaper; ``load_pruned`` loads such a
    checkpoint.

    Logged when masks or channels change and at the end of each epoch: ``pruning/sparsity`` and
    ``pruning/sparsity/<parameter>``, counted in the weights. With channels, they are the fraction of the original
    parameters that is removed and the fraction of each layer's channels. ``pruning/sparsity`` is in
    ``trainer.callback_metrics`` as well.

    Args:
        target: Final sparsity, a fraction in [0, 1), or fractions by pattern (``{"encoder.*": 0.9}``; a parameter, a
            module or a shell pattern). Patterns select the only parameters to prune, and each layer reaches its own
            target. With channels, a number is the fraction of the network's *parameters* to remove, and fractions by
            pattern are of *channels*. Optional for n:m, which implies it.
        granularity: ``"unstructured"``, ``"n:m"`` such as ``"2:4"`` (layers whose number of input channels is not a
            multiple of m stay dense), a block such as ``"4x1"`` (outputs x inputs), or ``"channels"``.
        criterion: Order in which weights are removed: smallest ``"magnitude"``, smallest ``"gradient"`` times weight,
            smallest ``"movement"`` since the start of the training, or ``"random"``. ``"rigl"`` is dynamic sparse
            training: the target sparsity from ``begin`` on, with weights dropped by magnitude and grown by gradient
            until ``end``. Channels support ``"magnitude"`` and ``"random"``.
        schedule: ``"cubic"`` (Zhu and Gupta), ``"linear"``, ``"one_cycle"``, or ``"constant"`` (all at once); see
            ``sparsity_at``.
        begin: First update: a fraction of the training (0.2) or the start of an epoch (``"3ep"``).
        end: Last update, at which the target is reached.
        every_n_steps: Optimizer steps between two updates. None for a fortieth of the span (channels: a quarter).
        scope: ``"global"`` compares the weights of all layers (with RigL: distributes the density by ERK);
            ``"layer"`` gives each layer the target. Only unstructured pruning and RigL can be global.
        include: Patterns of parameters to prune in addition to the weights of linear and convolutional layers.
        exclude: Patterns of parameters (with channels: of layers) not to prune.
        model: With channels, the dotted path of the network. None for the only child with parameters, ``""`` for the
            module itself.
        round_to: With channels, keep multiples of this number.
        total_steps: Optimizer steps of the whole training, if the Trainer cannot compute it (``max_epochs=-1``). With
            manual optimization, batches count as steps.
        seed: Seed of ``"random"``.

    Raises:
        TypeError: If a fraction is not a number.
        ValueError: If an argument is out of range or incompatible with another; in ``setup``, if a pattern matches
            nothing or the strategy is not supported (sharded parameters; channels with several processes or with
            ``WeightAveraging``); in training, if a target of channels cannot be reached.
        ModuleNotFoundError: With channels, without the extra ``compression``.

    Examples:
        ```python
        trainer = Trainer(callbacks=[Pruning(0.8)])                                  # 80 % zeros, by magnitude
        trainer = Trainer(callbacks=[Pruning(granularity="2:4", begin=0.5)])         # for sparse tensor cores
        trainer = Trainer(callbacks=[Pruning(0.5, granularity="channels", round_to=8)])  # half of the parameters
        ```

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
        super().__init__(locals())
        kind = Granularity.parse(granularity)
        channels = kind.kind == "channels"
        check_choice("criterion", criterion, CHANNEL_CRITERIA if channels else (*CRITERIA, "rigl"))
        check_choice("schedule", schedule, SHAPES)
        check_choice("scope", scope, ("global", "layer"))
        for name, value in (("every_n_steps", every_n_steps), ("total_steps", total_steps), ("round_to", round_to)):
            if value is not None:
                check_positive_int(name, value)
        checked = _check_target(target, kind)
        first, last = Moment.parse("begin", begin), Moment.parse("end", end)
        if first.in_epochs == last.in_epochs and last.value < first.value:
            raise ValueError(f"`end` should not come before `begin` ({begin!r}), got {end!r}.")
        if criterion == "rigl" and kind.kind != "unstructured":
            raise ValueError(f"`granularity` should be 'unstructured' with criterion 'rigl', got {granularity!r}.")
        if channels and include:
            raise ValueError(f"`include` should be empty with granularity 'channels', got {include!r}.")
        self.update_schedule = UpdateSchedule(first, last, every_n_steps, total_steps, 4 if channels else 40)
        self.method: MaskPruning | ChannelRemoval
        if channels:
            make = functools.partial(ChannelPruner, checked, criterion, schedule, tuple(exclude), round_to, seed)
            self.method = ChannelRemoval(make, self.update_schedule, model)
        else:
            make_masks = functools.partial(
                MaskPruner,
                target=checked,
                granularity=kind,
                criterion=criterion,
                schedule=schedule,
                scope=scope,
                include=tuple(include),
                exclude=tuple(exclude),
                seed=seed,
            )
            self.method = MaskPruning(make_masks, self.update_schedule)
        self._logged_step = -1

    @property
    @override
    def state_key(self) -> str:
        return f"Pruning[{'channels' if isinstance(self.method, ChannelRemoval) else 'masks'}]"

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        refuse_sharded(trainer, type(self).__name__)
        put_in_order(trainer)
        if len({type(c.method) for c in callbacks_of(trainer) if isinstance(c, Pruning)} | {type(self.method)}) > 1:
            raise ValueError(
                "`granularity` 'channels' should not be combined with masks in one training: the masks would not fit "
                "the smaller layers. Prune channels first, and the smaller model with masks in a second training."
            )
        self.method.setup(trainer, pl_module, stage)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self.method.on_fit_start(trainer, pl_module)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self.update_schedule.start(trainer)
        self.method.on_train_start(trainer, pl_module)
        self._logged_step = self.update_schedule.last_step

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.method.on_train_batch_start(trainer, pl_module, batch, batch_idx)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        self.method.on_before_optimizer_step(trainer, pl_module, optimizer)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self.method.on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.update_schedule.last_step != self._logged_step:
            self._logged_step = self.update_schedule.last_step
            counted = self.sparsity(pl_module)
            # Not `self.log`, which creates a metric for each name and sends values only when the Trainer logs.
            log_to_all(trainer, counted, logging_step(trainer))
            pl_module.log("pruning/sparsity", counted["pruning/sparsity"], on_step=True, on_epoch=False, logger=False)

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self.method.on_validation_start(trainer, pl_module)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        self.method.on_train_epoch_end(trainer, pl_module)
        counted = self.sparsity(pl_module)
        log_to_all(trainer, counted, logging_step(trainer) - 1)  # the step at which Lightning logs the epoch's means
        pl_module.log("pruning/sparsity", counted["pruning/sparsity"], sync_dist=True, logger=False)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        self.method.on_fit_end(trainer, pl_module)
        made, schedule = optimizer_steps(trainer), self.update_schedule
        if schedule.reached < 1 and made > 0:
            rank_zero_warn(
                f"`Pruning` ended at a sparsity of {self.sparsity(pl_module)['pruning/sparsity']:.2f}, before its "
                f"schedule: the training made {made} steps, and {schedule.steps} were expected. Set "
                f"`total_steps={made}`, or an earlier `end`."
            )

    @override
    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        self.method.on_save_checkpoint(trainer, pl_module, checkpoint)

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self.method.teardown(trainer, pl_module, "fit")  # Lightning calls no `teardown` then

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self.method.teardown(trainer, pl_module, stage)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self.method.state_dict(), **self.update_schedule.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.update_schedule.load_state_dict(state_dict)
        self.method.load_state_dict(state_dict)

    def sparsity(self, pl_module: pl.LightningModule) -> dict[str, float]:
        """Return the logged values by logged name: the overall sparsity and that of each pruned parameter or layer."""
        counted = self.method.sparsity(pl_module)
        return {f"pruning/sparsity{'/' if name else ''}{name}": value for name, value in counted.items()}


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
        raise ValueError(f"`target` should be omitted or {implied:g} with granularity {pattern!r}, got {target!r}.")
    return value
