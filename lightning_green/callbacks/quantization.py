"""Quantization-aware training, and conversion of the trained network to 8-bit integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor
from torch.fx import GraphModule
from torch.utils._pytree import tree_map_only
from typing_extensions import override

from lightning_green.callbacks._channel_removal import ChannelRemoval
from lightning_green.callbacks._compression import (
    CompressionCallback,
    TrainingLength,
    callbacks_of,
    optimizer_steps,
    put_in_order,
    refuse_sharded,
)
from lightning_green.callbacks._fake_quantization import FakeQuantization
from lightning_green.callbacks.pruning import Pruning
from lightning_green.compression.call_description import DynamicSizes, check_dynamic
from lightning_green.compression.inputs import as_inputs, call
from lightning_green.compression.quantization.agreement import Agreement, worst_agreement
from lightning_green.compression.quantization.fake_quantize import ACTIVATIONS, check_weight_bits
from lightning_green.compression.quantization.int8 import int8_inputs, is_int8
from lightning_green.compression.quantization.quantized_network import QuantizedNetwork
from lightning_green.compression.schedules import Moment
from lightning_green.utilities.validation import check_choice, check_positive_int


class QuantizationAwareTraining(CompressionCallback):
    r"""Train the last part of a training with the rounding of 8-bit integers, and convert the network to them.

    The module keeps its parameters, names and optimizer. From ``begin`` on, calls of its network are computed by a
    graph of the same parameters with fake quantization between the operations. Checkpoints are those of the plain
    model; the observed ranges are in this callback's state. Validation and tests use fake quantization as the loaded
    checkpoint does. Weights have one scale per output channel. The range of an activation is a moving average, equal
    on all ranks and constant from ``freeze`` on.

    Logged at the end of each epoch: ``quantization/active``, 0 or 1.

    Args:
        begin: Start of fake quantization: a fraction of the training (0.9) or the start of an epoch (``"3ep"``).
        freeze: Point from which the ranges of activations are constant.
        model: Dotted path of the network. None for the only child with parameters, ``""`` for the module itself.
        keep_float: Patterns of modules inside the network that stay in float.
        activation: ``"uint8"`` for ONNX Runtime and Inductor on x86, ``"int8"`` for XNNPACK (ExecuTorch).
        weight_bits: 7 or 8. None for 7 with ``"uint8"``, which is exact on every x86 processor, and 8 with ``"int8"``;
            see ``QuantizedNetwork``.
        total_steps: Optimizer steps of the whole training, if the Trainer cannot compute it (``max_epochs=-1``). With
            manual optimization, batches count as steps.
        dynamic: Dimensions of the network's inputs that have other sizes in other calls, besides that of the samples,
            by the name of the argument: ``{"tokens": [1]}`` for sequences of any length, ``{"images": [2, 3]}`` for
            images of any size. Without it, each size has graphs of its own, and the model in int8 accepts one size.

    Raises:
        TypeError: If a fraction is not a number, ``keep_float`` is a string, or ``dynamic`` is no dictionary of lists.
        ValueError: If an argument is out of range; in ``setup``, if there is no such network or the strategy shards
            parameters; before the first step, if the network cannot be exported (the message contains the line) or a
            pattern matches nothing; at the start, if channels would be removed after ``begin``; at ``begin``, if the
            network has not been called.

    Examples:
        ```python
        qat = QuantizationAwareTraining(begin=0.9)     # a tenth of the steps, because they cost more
        Trainer(callbacks=[qat]).fit(module, data)
        export(qat.convert(module), "model.onnx")      # int8, with batch norm folded in
        ```

    """

    compression_order = 1

    def __init__(
        self,
        begin: float | str = 0.9,
        freeze: float | str = 0.97,
        model: str | None = None,
        keep_float: Sequence[str] = (),
        activation: str = "uint8",
        weight_bits: int | None = None,
        total_steps: int | None = None,
        dynamic: DynamicSizes | None = None,
    ) -> None:
        super().__init__(locals())
        check_choice("activation", activation, ACTIVATIONS)
        check_weight_bits(weight_bits)
        check_dynamic(dynamic)
        if total_steps is not None:
            check_positive_int("total_steps", total_steps)
        if isinstance(keep_float, str):
            raise TypeError(f"`keep_float` should be a list of patterns, got the string {keep_float!r}.")
        self.begin, self.freeze = Moment.parse("begin", begin), Moment.parse("freeze", freeze)
        if self.begin.in_epochs == self.freeze.in_epochs and self.freeze.value < self.begin.value:
            raise ValueError(f"`freeze` should not come before `begin` ({begin!r}), got {freeze!r}.")
        self.total_steps = total_steps
        self._quantization = FakeQuantization(model, keep_float, activation, weight_bits, dynamic)
        self._begin_step = self._freeze_step = 0

    @property
    def quantized(self) -> QuantizedNetwork | None:
        """The network in fake quantization; None before ``begin``."""
        return self._quantization.quantized

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        refuse_sharded(trainer, type(self).__name__)
        put_in_order(trainer)
        self._quantization.attach(pl_module, stage)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_start(trainer, pl_module)
        self._quantization.restore(pl_module)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        length = TrainingLength.of(trainer, self.total_steps)
        self._begin_step, self._freeze_step = length.step(self.begin), length.step(self.freeze)
        if self._freeze_step < self._begin_step:
            raise ValueError(
                f"`freeze` should not come before `begin`: they are steps {self._freeze_step} and {self._begin_step}."
            )
        for other in callbacks_of(trainer):
            if not isinstance(other, Pruning) or not isinstance(other.method, ChannelRemoval):
                continue
            span = other.update_schedule.span
            if span is not None and span.end > self._begin_step:
                raise ValueError(
                    f"`Pruning` should remove its last channels before quantization begins, but its `end` is step "
                    f"{span.end} and `begin` of QuantizationAwareTraining is step {self._begin_step}."
                )

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._quantization.restore(pl_module)

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_test_start(trainer, pl_module)
        self._quantization.restore(pl_module)

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_predict_start(trainer, pl_module)
        self._quantization.restore(pl_module)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        step = optimizer_steps(trainer)
        quantized = self.quantized
        if quantized is None and step >= self._begin_step and self._quantization.can_begin():
            quantized = self._quantization.begin(pl_module)
            rank_zero_info(f"Fake quantization begins at step {step}.")
        if quantized is not None:
            quantized.observing = step < self._freeze_step or quantized.has_unseen()

    @override
    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        super().on_before_backward(trainer, pl_module, loss)
        self._quantization.check(pl_module)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if self.quantized is None and optimizer_steps(trainer) > self._begin_step:
            self._quantization.require_call(pl_module)

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_end(trainer, pl_module)
        pl_module.log("quantization/active", float(self.quantized is not None), sync_dist=True)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        made = optimizer_steps(trainer)
        if self.quantized is None and made > 0:
            rank_zero_warn(
                f"`QuantizationAwareTraining` did not begin: the training made {made} steps, and `begin` is step "
                f"{self._begin_step}. Set `total_steps={made}`, or an earlier `begin`."
            )

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._quantization.detach(pl_module)  # Lightning calls no `teardown` then

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().teardown(trainer, pl_module, stage)
        self._quantization.detach(pl_module)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), **self._quantization.state_dict()}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._quantization.load_state_dict(state_dict)

    def convert(self, module: pl.LightningModule) -> GraphModule:
        """Return a copy of the module's network that computes with 8-bit integers.

        Args:
            module: The trained module, which does not change. Or another module that has loaded its weights, after
                this callback has loaded its state from the same checkpoint
                (``callback.load_state_dict(checkpoint["callbacks"][callback.state_key])``).

        Raises:
            ValueError: If quantization has not begun, or the outputs of the copy differ from those of the
                fake-quantized network.

        """
        converted = self._quantization.quantized_of(module).convert()
        self.agreement(converted, module).require(0.05, "the model in int8", "the fake-quantized one")
        return converted

    def agreement(
        self,
        model: torch.nn.Module,
        module: pl.LightningModule,
        inputs: Sequence[Any] | Mapping[str, Any] | None = None,
    ) -> Agreement:
        """Compare the outputs of a model with those of the module's network in fake quantization.

        Args:
            model: A model on the CPU, such as the result of ``convert``.
            module: The trained module.
            inputs: Inputs of the network: positional arguments, or a dictionary of arguments by keyword. None for
                numbers of the shapes seen in training.

        """
        quantized = self._quantization.quantized_of(module)
        quantized.observing = False
        given = (
            quantized.inputs if inputs is None else as_inputs(inputs if isinstance(inputs, Mapping) else tuple(inputs))
        )
        device = next(quantized.network.parameters()).device
        with torch.no_grad():
            expected = quantized.compute(tree_map_only(Tensor, lambda t: t.to(device), given), training=False)
            given = tree_map_only(Tensor, lambda t: t.cpu(), given)
            if is_int8(model):
                given = int8_inputs(model, given, quantized.network)
            outputs = call(model, given)
        return worst_agreement([outputs], [expected])
