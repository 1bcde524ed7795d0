"""The part of the ``Pruning`` callback that removes channels."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle
from typing_extensions import override

from lightning_green._lightning.namespaces import both
from lightning_green.callbacks._compression import averages_weights, optimizer_steps, report_left
from lightning_green.callbacks._update_schedule import UpdateSchedule
from lightning_green.callbacks._weight_copies import WeightCopies
from lightning_green.compression.input_recorder import InputRecorder
from lightning_green.compression.inputs import Inputs
from lightning_green.compression.network import find_network, uncompiled
from lightning_green.compression.pruning.channel_pruner import ChannelPruner
from lightning_green.compression.pruning.optimizer_states import check_states
from lightning_green.compression.pruning.resizing import resize_to


class ChannelRemoval(Callback):
    """Remove channels of a network on a schedule.

    Args:
        make_pruner: Returns a pruner for a new module.
        schedule: The optimizer steps at which channels are removed.
        model: Dotted path of the network; None for the only child with parameters.

    Raises:
        ModuleNotFoundError: Without the extra ``compression``.

    """

    def __init__(self, make_pruner: Callable[[], ChannelPruner], schedule: UpdateSchedule, model: str | None) -> None:
        self.pruner = make_pruner()
        self._make_pruner, self._schedule, self._model = make_pruner, schedule, model
        self._inputs = InputRecorder()
        self._module: weakref.ref[pl.LightningModule] | None = None
        self._shapes: dict[str, torch.Size] = {}
        self._load_hook: RemovableHandle | None = None
        self._has_checked_states = False
        self._copies: WeightCopies | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if trainer.world_size > 1 or isinstance(trainer.strategy, both(DDPStrategy)):
            raise ValueError(
                "`granularity` 'channels' replaces parameters, which DDP does not detect: it should train on one "
                f"device, got {type(trainer.strategy).__name__} with {trainer.world_size} processes."
            )
        if averages_weights(trainer):
            raise ValueError(
                "`granularity` 'channels' should not be combined with WeightAveraging: its copy keeps all channels."
            )
        shapes = {name: p.shape for name, p in pl_module.named_parameters()}
        if self._module is not None and self._module() is pl_module:  # a second stage of the same training
            shapes = self._shapes
        elif self._module is None or stage == "fit":
            self._module, self._shapes = weakref.ref(pl_module), shapes
            self.pruner = self._make_pruner()
            self._schedule.reset()
            self._inputs = InputRecorder()
            self._has_checked_states, self._copies = False, None
        if self._inputs.first is None and self._module() is pl_module:
            self._inputs.attach(find_network(pl_module, self._model))

        def resize(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
            if _is_smaller(state, shapes, prefix):  # else it is another model's, and loading it raises as usual
                resize_to(module, state, prefix)

        # A function and not a method: a deep copy of the module would copy this callback with a bound method.
        self._load_hook = pl_module.register_load_state_dict_pre_hook(resize)  # type: ignore[no-untyped-call]

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        network = uncompiled(find_network(pl_module, self._model))
        path = next(name for name, module in pl_module.named_modules() if module is network)
        self._copies = WeightCopies(trainer, pl_module, {path: network, "": pl_module})

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = optimizer_steps(trainer)
        if step.bit_count() <= 1 or self._schedule.is_due(step):  # powers of two: early, and not in each step
            self._refuse_copies()
        starts_window = batch_idx % trainer.accumulate_grad_batches == 0  # else accumulated gradients would be lost
        # Before the network's first call its inputs are unknown; the update stays due until after it.
        if not starts_window or not self._schedule.is_due(step) or not self._inputs.has_seen_call():
            return
        network, example = self._network_and_example(pl_module)
        check_states(trainer.optimizers)  # also of parameters that are trained since the first check
        with self._inputs.paused():
            self.pruner.update(network, example, self._schedule.progress(step), trainer.optimizers)
        self._schedule.note_update(step)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Try the whole way on a copy before the first step, so that nothing turns out to be impossible after hours."""
        if not self.pruner.layers and self._inputs.has_seen_call():
            network, example = self._network_and_example(pl_module)
            with self._inputs.paused():
                left = self.pruner.prepare(network, example)
            report_left(left, len(left) + self.pruner.layers, "groups of channels")

    def _refuse_copies(self) -> None:
        changed = {} if self._copies is None else self._copies.changed()
        if changed:
            raise ValueError(
                f"`granularity` 'channels' should not be combined with a copy of the weights that is updated during "
                f"training, such as a moving average: {', '.join(f'`{place}`' for place in changed)} would keep all "
                "channels. Average the weights in a second training of the smaller network, or prune with masks."
            )

    def _network_and_example(self, pl_module: pl.LightningModule) -> tuple[nn.Module, Inputs]:
        network = uncompiled(find_network(pl_module, self._model))
        assert self._inputs.first is not None
        return network, self._inputs.first.examples(next(network.parameters()).device, batch=1)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._has_checked_states and any(optimizer.state for optimizer in trainer.optimizers):
            check_states(trainer.optimizers)
            self._has_checked_states = True
        # An update that is due at the next batch was not made at this one.
        if self._schedule.is_due(optimizer_steps(trainer)):
            self._inputs.require_call(uncompiled(find_network(pl_module, self._model)))

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._inputs.close()
        if self._load_hook is not None:
            self._load_hook.remove()
            self._load_hook = None

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"pruner": self.pruner.state_dict(), "inputs": self._inputs.state()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._inputs.restore(state_dict["inputs"])
        if state_dict["pruner"]:
            self.pruner.load_state_dict(state_dict["pruner"])

    def sparsity(self, pl_module: pl.LightningModule) -> dict[str, float]:
        """Return the fraction of parameters that is removed under ``""``, and of each layer's channels by name."""
        return self.pruner.sparsity(uncompiled(find_network(pl_module, self._model)))


def _is_smaller(state: Mapping[str, Tensor], shapes: Mapping[str, torch.Size], prefix: str) -> bool:
    """Return whether no tensor of a state is larger than the model's in any dimension."""
    pairs = ((state[prefix + name].shape, shape) for name, shape in shapes.items() if prefix + name in state)
    return all(len(a) == len(b) and all(x <= y for x, y in zip(a, b, strict=True)) for a, b in pairs)
