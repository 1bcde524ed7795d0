"""DDP that sends fewer bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from lightning.pytorch.utilities import rank_zero_info
from torch import nn
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from typing_extensions import override

from lightning_green._lightning.loggers import logging_step, should_log
from lightning_green.strategies.communication_options import CommunicationOptions, Compression
from lightning_green.strategies.gradient_communication import GradientCommunication, communicate
from lightning_green.strategies.traffic import JOULES_PER_BYTE, Traffic

STATE_KEY = "lightning_green_communication"
"""Key of the state of the communication in a checkpoint of Lightning."""
_OF_DDP = ("ddp_comm_state", "ddp_comm_hook", "ddp_comm_wrapper", "model_averaging_period")


class GreenDDPStrategy(DDPStrategy):
    r"""DDP that compresses gradients, or averages parameters from time to time instead, and counts the bytes.

    It pays if the network is slow: between machines without a fast interconnect. Each rank logs
    ``communication/bytes_per_step`` (the mean bytes that a rank sends per optimizer step since the last value) and
    ``communication/kwh_modeled`` (an estimate of the energy of all bytes so far, over restarts).

    `Trainer(strategy="ddp_green")` and `Trainer(strategy="ddp_green_low_rank")` work after an import from
    ``lightning_green``.

    Args:
        compression: ``"bf16"`` or ``"fp16"`` send gradients in 16 bits. ``"low_rank"`` sends a product of two thin
            matrices (PowerSGD, arXiv 1905.13727) for each parameter that has at least two dimensions and that is large
            enough, and all others whole; each rank adds what was not sent to its next gradients. None sends all
            gradients whole, as DDP does.
        compression_rank: Number of columns of the thin matrices.
        start_compression_at_step: Optimizer step from which gradients are compressed.
        average_every: Number of optimizer steps from one average of the parameters to the next (post-local SGD, arXiv
            1808.07217). In between, each rank trains with its own gradients. Each rank has its own optimizer states,
            which are not averaged, and clips by the norm of its own gradients. Buffers are averaged with the
            parameters and not broadcast. None sends the gradients of every step.
        start_averaging_at_step: Optimizer step from which parameters are averaged and no gradients are sent.
        joules_per_byte: Energy of one byte that a rank sends. The default is the coefficient of Cloud Carbon Footprint
            for data between data centers, 0.001 kWh/GB.
        kwargs: Arguments of ``DDPStrategy``.

    Raises:
        ValueError: If an argument is invalid, or low-rank compression and averaging are combined.
        TypeError: If a communication hook is passed.

    Examples:
        >>> from lightning_green import GreenDDPStrategy
        >>> import lightning.pytorch as pl
        >>> strategy = GreenDDPStrategy("low_rank", compression_rank=2, start_compression_at_step=100)
        >>> trainer = pl.Trainer(strategy=strategy, accelerator="cpu", devices=2, logger=False)

    """

    strategy_name = "ddp_green"

    def __init__(
        self,
        compression: Compression | None = "bf16",
        compression_rank: int = 4,
        start_compression_at_step: int = 0,
        average_every: int | None = None,
        start_averaging_at_step: int = 0,
        joules_per_byte: float = JOULES_PER_BYTE,
        **kwargs: Any,
    ) -> None:
        hooks = [name for name in _OF_DDP if kwargs.get(name) is not None]
        if hooks:
            raise TypeError(
                f"`{hooks[0]}` should be passed to `DDPStrategy`: GreenDDPStrategy registers a communication hook of "
                "its own, and DDP has one."
            )
        if average_every is not None:
            kwargs.setdefault("broadcast_buffers", False)
        super().__init__(**kwargs)
        self.options = CommunicationOptions(
            compression,
            compression_rank,
            start_compression_at_step,
            average_every,
            start_averaging_at_step,
            joules_per_byte,
        )
        self.communication: GradientCommunication | None = None
        self._loaded: dict[str, Any] | None = None  # a checkpoint of Lightning, until the model is wrapped

    @classmethod
    @override
    def register_strategies(cls, strategy_registry: Any) -> None:
        for name, compression in (("ddp_green", "bf16"), ("ddp_green_low_rank", "low_rank")):
            description = f"DDP with gradients in {compression}"
            strategy_registry.register(name, cls, description, override=True, compression=compression)

    @override
    def configure_ddp(self) -> None:
        module = self.lightning_module
        assert module is not None
        check_not_sharded(module)
        super().configure_ddp()
        if self.options.compression == "low_rank" and _finds_unused(self.model):
            raise ValueError(
                '`compression="low_rank"` should not be combined with `find_unused_parameters=True`: DDP also sends '
                "gradients of parameters that no rank has used, and drops the result, so their errors would be lost. "
                'Use `compression="bf16"`.'
            )
        self.communication = GradientCommunication(module, self.options, self.world_size)
        if isinstance(self.model, DistributedDataParallel) and self.communication.needs_hook:
            self.model.register_comm_hook(self.communication, communicate)
        self._restore(self.communication)

    @override
    def pre_backward(self, closure_loss: torch.Tensor) -> None:
        super().pre_backward(closure_loss)
        communication, scaler = self.communication, getattr(self.precision_plugin, "scaler", None)
        if communication is None:
            return
        communication.has_scaler = scaler is not None
        if communication.low_rank is not None:  # the checkpoint may be of a training with another precision
            communication.set_loss_scale(1.0 if scaler is None else float(scaler.get_scale()))  # waits for the device

    @override
    def post_backward(self, closure_loss: torch.Tensor) -> None:
        super().post_backward(closure_loss)
        model = self.model if isinstance(self.model, DistributedDataParallel) else None
        if self.communication is not None and model is not None and model.require_backward_grad_sync:
            self.communication.after_backward(model)

    @override
    def optimizer_step(self, optimizer: Optimizer, closure: Callable[[], Any], model: Any = None, **kwargs: Any) -> Any:
        output = super().optimizer_step(optimizer, closure, model, **kwargs)
        communication, module = self.communication, self.lightning_module
        if communication is None or module is None:
            return output
        index = next((number for number, one in enumerate(self.optimizers) if one is optimizer), 0)
        communication.after_step(index, optimizer)
        if should_log(module.trainer):
            metrics = communication.metrics()
            for logger in module.trainer.loggers:
                logger.log_metrics(metrics, step=logging_step(module.trainer))
        return output

    @override
    def on_train_end(self) -> None:
        super().on_train_end()
        communication, module = self.communication, self.lightning_module
        if communication is not None and module is not None and communication.is_local:
            trained = self._trained()
            parameters = [one for one in module.parameters() if id(one) in trained]
            communication.average([*parameters, *module.buffers()])

    @override
    def teardown(self) -> None:
        self._loaded = None
        super().teardown()

    @override
    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any | None = None) -> None:
        """Save a checkpoint of Lightning with the mean state of the ranks; all ranks call it together."""
        communication, module = self.communication, self.lightning_module
        if communication is not None and module is not None and torch.distributed.is_initialized():
            # After an exception the other ranks may not take part: the file has the state of this rank.
            together = module.trainer.state.status != TrainerStatus.INTERRUPTED
            if together and communication.has_local_steps:
                trained = self._trained()
                own = {name for name, one in module.named_parameters() if id(one) not in trained}
                checkpoint["state_dict"] = _averaged(checkpoint["state_dict"], communication.traffic.size, own)
            if "optimizer_states" in checkpoint:
                checkpoint[STATE_KEY] = communication.mean_state() if together else communication.state_dict()
        super().save_checkpoint(checkpoint, filepath, storage_options=storage_options)

    @override
    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        checkpoint: dict[str, Any] = super().load_checkpoint(checkpoint_path, weights_only)
        module = self.lightning_module
        if module is not None and module.trainer.state.fn == TrainerFn.FITTING and "optimizer_states" in checkpoint:
            self._loaded = {STATE_KEY: checkpoint.get(STATE_KEY)}
            if self.communication is not None and isinstance(self.model, DistributedDataParallel):  # of a tuner
                self.communication.reset()
                self._restore(self.communication)
        return checkpoint

    def _trained(self) -> set[int]:
        """Return the ``id`` of each parameter that an optimizer changes."""
        return {id(one) for optimizer in self.optimizers for group in optimizer.param_groups for one in group["params"]}

    def _restore(self, communication: GradientCommunication) -> None:
        """Set the state of the checkpoint of Lightning from which the fit continues."""
        loaded, self._loaded = self._loaded, None
        if loaded is None:
            return
        state = loaded[STATE_KEY]
        if state is not None:
            for tensors in (state.get("errors", {}), state.get("factors", {})):
                tensors.update({name: one.to(self.root_device) for name, one in tensors.items()})
            communication.load_state_dict(state)
        if communication.low_rank is not None and (state is None or "errors" not in state):
            rank_zero_info(
                "The checkpoint contains no state of a low-rank compression: the part of the gradients that was not "
                "sent before it was saved, if any, is lost."
            )


def check_not_sharded(module: nn.Module) -> None:
    """Check that each rank has whole parameters.

    Raises:
        ValueError: If a parameter is sharded.

    """
    sharded = any(isinstance(one, (FSDPModule, FullyShardedDataParallel)) for one in module.modules())
    if sharded or any(isinstance(one, DTensor) for one in module.parameters()):
        raise ValueError(
            "GreenDDPStrategy cannot train a sharded model, because no rank has a whole gradient to compress or whole "
            "parameters to average; use `FSDPStrategy` or `ModelParallelStrategy`, or remove the sharding from "
            "`configure_model`."
        )


def _finds_unused(model: Any) -> bool:
    is_wrapped = isinstance(model, DistributedDataParallel)
    return is_wrapped and model.find_unused_parameters and not model.static_graph


@torch.no_grad()
def _averaged(state: dict[str, Any], size: int, own: set[str]) -> dict[str, Any]:
    """Return the mean of a model over the ranks, without the parameters that are ``own`` of each and equal."""
    copies = {
        name: value.detach().clone()
        for name, value in state.items()
        if name not in own and isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())
    }
    Traffic(size).average(list(copies.values()))
    return {**state, **copies}


GreenDDPStrategy.register_strategies(StrategyRegistry)
