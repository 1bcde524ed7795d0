"""Training in fake quantization, and what comes out of it in int8."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.fx import GraphModule
from typing_extensions import override

from lightning_green.callbacks._compression import (
    TrainingLength,
    callbacks_of,
    optimizer_steps,
    put_in_order,
    refuse_sharded,
)
from lightning_green.callbacks.pruning import Pruning
from lightning_green.compression.network import InputRecorder, TensorSpec, example_inputs, find_network, uncompiled
from lightning_green.compression.quantization.agreement import Agreement, agreement
from lightning_green.compression.quantization.fake_quantize import ACTIVATIONS, check_weight_bits
from lightning_green.compression.quantization.quantized_forward import plain_forward, quantized_forward
from lightning_green.compression.quantization.quantized_network import QuantizedNetwork
from lightning_green.compression.schedules import Moment
from lightning_green.utilities.validation import check_choice, check_positive_int


class QuantizationAwareTraining(Callback):
    r"""Train the last part of a training with the rounding of 8-bit integers, and convert the model to them.

    ::

        qat = QuantizationAwareTraining(begin=0.9)                     # a tenth of the steps: they cost more
        Trainer(callbacks=[qat]).fit(module, data)
        export(qat.convert(module), "model.onnx")                      # int8, batch norm folded in

    The module is left as it is, with its parameters, names and optimizer; from ``begin`` on, calls of its network are
    computed by a graph of the same parameters with fake quantization between the operations. So checkpoints are those
    of the plain model, and what was observed is in this callback's state. Validation and tests run with fake
    quantization too, whichever checkpoint they take. Weights have a scale per channel, activations a moving average of
    their range, the same on all ranks, which stops to move at ``freeze``.

    Logged at the end of an epoch: ``quantization/active``, 0 or 1.

    Args:
        begin: When fake quantization starts: a fraction of the training (0.9) or the start of an epoch (``"3ep"``).
        freeze: When the ranges of activations stop to move.
        model: Dotted path of the network. None for the only child with parameters.
        keep_float: Patterns of modules inside the network that stay in float.
        activation: ``"uint8"`` for ONNX Runtime and Inductor on x86, ``"int8"`` for XNNPACK (ExecuTorch).
        weight_bits: 7 or 8. None for 7 with ``"uint8"``, which is right on every x86 processor, and 8 with ``"int8"``;
            see :class:`~lightning_green.compression.QuantizedNetwork`.
        total_steps: Optimizer steps of the whole training, where the Trainer cannot tell (``max_epochs=-1``).

    Raises:
        TypeError: If a number is something else.
        ValueError: If an argument is out of its range; in ``setup``, if there is no such network or the strategy
            shards parameters; when it begins, if the network cannot be exported (the message names the line), a
            pattern matches nothing, or channels would be removed later.

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
    ) -> None:
        check_choice("activation", activation, ACTIVATIONS)
        check_weight_bits(weight_bits)
        if total_steps is not None:
            check_positive_int("total_steps", total_steps)
        if isinstance(keep_float, str):
            raise TypeError(f"`keep_float` should be a list of patterns, got the string {keep_float!r}.")
        self.begin, self.freeze = Moment.parse("begin", begin), Moment.parse("freeze", freeze)
        if self.begin.in_epochs == self.freeze.in_epochs and self.freeze.value < self.begin.value:
            raise ValueError(f"`freeze` should not come before `begin` ({begin!r}), got {freeze!r}.")
        self.model, self.keep_float, self.activation = model, tuple(keep_float), activation
        self.weight_bits, self.total_steps = weight_bits, total_steps
        self.quantized: QuantizedNetwork | None = None
        self._module: weakref.ref[pl.LightningModule] | None = None
        self._inputs: list[TensorSpec] | None = None
        self._recorder: InputRecorder | None = None
        self._begin_step = self._freeze_step = 0
        self._restored: dict[str, Any] | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        refuse_sharded(trainer, type(self).__name__)
        put_in_order(trainer)
        network = find_network(pl_module, self.model)
        if network is pl_module:
            raise ValueError("`model` should be the dotted path of a network inside the LightningModule, got ''.")
        if self._module is None or self._module() is not pl_module:  # not a second stage of the same training
            self._module, self.quantized, self._inputs = weakref.ref(pl_module), None, None
        if self._inputs is None:
            self._recorder = InputRecorder(network)

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._apply_restored(pl_module)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        length = TrainingLength.of(trainer, self.total_steps)
        self._begin_step, self._freeze_step = length.step(self.begin), length.step(self.freeze)
        if self._freeze_step < self._begin_step:
            raise ValueError(
                f"`freeze` should not come before `begin`: they are steps {self._freeze_step} and {self._begin_step}."
            )
        for other in callbacks_of(trainer):
            if not isinstance(other, Pruning) or other.channels is None or other.span is None:
                continue
            if other.span.end > self._begin_step:
                raise ValueError(
                    f"`Pruning` should remove its last channels before quantization begins, but its `end` is step "
                    f"{other.span.end} and `begin` of QuantizationAwareTraining is step {self._begin_step}."
                )

    @override
    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._apply_restored(pl_module)

    @override
    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._apply_restored(pl_module)

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._apply_restored(pl_module)

    @override
    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        step = optimizer_steps(trainer)
        if self.quantized is None and step >= self._begin_step and self._seen_inputs() is not None:
            self._prepare(pl_module)
            rank_zero_info(f"Fake quantization begins at step {step}.")
        if self.quantized is not None:
            self.quantized.observing = step < self._freeze_step or self.quantized.has_unseen()

    @override
    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        pl_module.log("quantization/active", float(self.quantized is not None), sync_dist=True)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._seen_inputs()
        if self._recorder is not None:
            self._recorder.close()
            self._recorder = None
        plain_forward(find_network(pl_module, self.model))

    @override
    def state_dict(self) -> dict[str, Any]:
        ranges = None if self.quantized is None else self.quantized.state_dict()
        return {"inputs": self._seen_inputs(), "ranges": ranges}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._restored = state_dict

    def convert(self, module: pl.LightningModule) -> GraphModule:
        """Return a copy of the module's network that computes with 8-bit integers; the module is left as it is.

        Args:
            module: The module that was trained; or one that has loaded its weights, in a callback that has loaded the
                state of the checkpoint (``callback.load_state_dict(checkpoint["callbacks"][callback.state_key])``).

        Raises:
            ValueError: If quantization has not begun, or the copy does not agree with the fake-quantized network.

        """
        quantized = self._quantized_of(module)
        converted = quantized.convert()
        result = self.agreement(converted, module)
        result.require(0.05, "The model in int8", "the fake-quantized one")
        return converted

    def agreement(
        self, model: torch.nn.Module, module: pl.LightningModule, inputs: Sequence[Tensor] | None = None
    ) -> Agreement:
        """Compare a model's answers with those of the module's network in fake quantization.

        Args:
            model: Such as the one that :meth:`convert` returned.
            module: The module that was trained.
            inputs: What the network is called with. None for numbers of the shapes that it was called with before.

        """
        quantized = self._quantized_of(module)
        quantized.observing = False
        given = quantized.inputs if inputs is None else tuple(inputs)
        device = next(quantized.network.parameters()).device
        with torch.no_grad():
            expected = quantized.run(*(tensor.to(device) for tensor in given), training=False)
            answer = model(*(tensor.cpu() for tensor in given))
        return agreement([answer], [expected])

    def _quantized_of(self, module: pl.LightningModule) -> QuantizedNetwork:
        network = uncompiled(find_network(module, self.model))
        if self._restored is None and self.quantized is not None and self.quantized.network is network:
            self.quantized.share_tensors()
            return self.quantized
        state = self._restored or self.state_dict()
        if state["ranges"] is None:
            raise ValueError("There is nothing to convert: fake quantization has not begun; train past `begin` first.")
        self._inputs = state["inputs"]
        quantized = self._build(network)
        quantized.load_state_dict(state["ranges"])
        return quantized

    def _apply_restored(self, pl_module: pl.LightningModule) -> None:
        """Take up a checkpoint's state, now that weights are loaded, and put the graphs in the network's place."""
        state, self._restored = self._restored, None
        if state is not None:
            self._inputs = state["inputs"] or self._inputs
            self.quantized = None
            plain_forward(find_network(pl_module, self.model))
            if state["ranges"] is not None:
                self._prepare(pl_module)
                assert self.quantized is not None
                self.quantized.load_state_dict(state["ranges"])
        elif self.quantized is not None:
            self.quantized.share_tensors()
            quantized_forward(find_network(pl_module, self.model), self.quantized)

    def _prepare(self, pl_module: pl.LightningModule) -> None:
        network = find_network(pl_module, self.model)
        self.quantized = self._build(uncompiled(network))
        quantized_forward(network, self.quantized)

    def _build(self, network: torch.nn.Module) -> QuantizedNetwork:
        if self._recorder is not None and self._recorder.problem:
            raise ValueError(self._recorder.problem)
        assert self._inputs is not None
        device = next(network.parameters()).device
        return QuantizedNetwork(
            network, example_inputs(self._inputs, device, batch=2), self.keep_float, self.activation, self.weight_bits
        )

    def _seen_inputs(self) -> list[TensorSpec] | None:
        if self._inputs is None and self._recorder is not None:
            self._inputs = self._recorder.spec
        return self._inputs
