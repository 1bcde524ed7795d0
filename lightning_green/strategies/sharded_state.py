"""What one rank holds of a model that is spread over the ranks: its own pieces of the weights and optimizer states.

With FSDP no process has the whole model, and to gather it costs as much memory on one rank as sharding saves. For the
same number of processes the pieces are the state: each rank writes its own, beside the checkpoint of rank 0.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.strategies import FSDPStrategy, ModelParallelStrategy
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map
from torchmetrics import Metric


def is_sharded(trainer: pl.Trainer) -> bool:
    """Return whether each rank holds a part of the model only."""
    return isinstance(trainer.strategy, (FSDPStrategy, ModelParallelStrategy))


def why_not_sharded(trainer: pl.Trainer) -> str | None:
    """Return what keeps a state that the pieces leave out: a callback or a module; None without one."""
    strategy = type(trainer.strategy).__name__
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, (WeightAveraging, StochasticWeightAveraging)):
            return (
                f"the averaged model of {type(callback).__name__} is not saved exactly with {strategy}; use DDP, or "
                "leave the callback out"
            )
    for module in trainer.lightning_module.modules():
        more = type(module).get_extra_state is not torch.nn.Module.get_extra_state
        if more or (isinstance(module, Metric) and any(module._persistent.values())):
            return (
                f"{type(module).__name__} keeps more in its `state_dict` than parameters and buffers, and that is not "
                f"saved exactly with {strategy}; use DDP"
            )
    return None


def _local(value: Any) -> Any:
    """Return the piece of this rank, where a tensor is spread over the ranks."""
    return value.to_local() if isinstance(value, DTensor) else value


def _tensors(trainer: pl.Trainer) -> dict[str, torch.Tensor]:
    """Return the pieces of parameters and the buffers of the model as the strategy has wrapped it."""
    model = trainer.strategy.model
    assert model is not None
    for module in model.modules():
        if isinstance(module, FSDPModule):  # a validation leaves the outermost assembled
            module.reshard()
    return {name: _local(one.detach()) for name, one in [*model.named_parameters(), *model.named_buffers()]}


def capture_shard(trainer: pl.Trainer) -> dict[str, Any]:
    """Return this rank's part of the state; between two batches."""
    return {
        "tensors": _tensors(trainer),
        "optimizers": [tree_map(_local, optimizer.state_dict()) for optimizer in trainer.optimizers],
    }


@torch.no_grad()
def restore_shard(trainer: pl.Trainer, shard: dict[str, Any]) -> None:
    """Put back what ``capture_shard`` returned, once the strategy has wrapped the model.

    Raises:
        RuntimeError: If the model is split in another way than the one that was saved.

    """
    own, saved = _tensors(trainer), shard["tensors"]
    names = sorted(own.keys() ^ saved.keys()) or [name for name in own if own[name].shape != saved[name].shape]
    if names:
        raise RuntimeError(
            f"The checkpoint holds the model in other pieces than {type(trainer.strategy).__name__} makes now, for "
            f"example `{names[0]}`. Start it with the wrapping and the devices that it was saved with, or anew with "
            "`lightning-green run --fresh -- ...`."
        )
    for name, piece in own.items():
        piece.copy_(saved[name])
    for optimizer, state in zip(trainer.optimizers, shard["optimizers"], strict=True):
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        for index, values in state["state"].items():
            like = parameters[index]
            if isinstance(like, DTensor):
                shape = like.to_local().shape
                for key, value in values.items():
                    if isinstance(value, torch.Tensor) and value.shape == shape and value.dim() > 0:
                        values[key] = DTensor.from_local(
                            value.to(like.device), like.device_mesh, like.placements, shape=like.shape,
                            stride=like.stride(),
                        )  # fmt: skip
        optimizer.load_state_dict(state)
