"""The shard of one rank of a sharded model: its parts of the weights and of the optimizer states.

With FSDP no process has the whole model, and gathering it on one rank would cost the memory that sharding saves. Each
rank writes its own shard next to the checkpoint of rank 0, which requires the same number of ranks at a resume.
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

from lightning_green._lightning.namespaces import both


def is_sharded(trainer: pl.Trainer) -> bool:
    """Return whether each rank holds only a part of the model."""
    return isinstance(trainer.strategy, both(FSDPStrategy, ModelParallelStrategy))


def why_not_sharded(trainer: pl.Trainer) -> str | None:
    """Return why the shards do not contain the whole state (a callback or a module keeps more); None if they do."""
    strategy = type(trainer.strategy).__name__
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, both(WeightAveraging, StochasticWeightAveraging)):
            return (
                f"the averaged model of {type(callback).__name__} is not saved exactly with {strategy}; use DDP or "
                "remove the callback"
            )
    for module in trainer.lightning_module.modules():
        more = type(module).get_extra_state is not torch.nn.Module.get_extra_state
        if more or (isinstance(module, Metric) and any(module._persistent.values())):
            return (
                f"{type(module).__name__} keeps more in its `state_dict` than parameters and buffers, and that part is "
                f"not saved exactly with {strategy}; use DDP"
            )
    return None


def _local_part(value: Any) -> Any:
    """Return the part of this rank of a sharded tensor; other values unchanged."""
    return value.to_local() if isinstance(value, DTensor) else value


def _tensors(trainer: pl.Trainer) -> dict[str, torch.Tensor]:
    """Return this rank's parts of the parameters, and the buffers, of the model as the strategy wrapped it."""
    model = trainer.strategy.model
    assert model is not None
    for module in model.modules():
        if isinstance(module, FSDPModule):  # after a validation the outermost module is unsharded
            module.reshard()
    return {name: _local_part(one.detach()) for name, one in [*model.named_parameters(), *model.named_buffers()]}


def capture_shard(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the shard of this rank; called between two batches."""
    return {
        "tensors": _tensors(trainer),
        "optimizers": [tree_map(_local_part, optimizer.state_dict()) for optimizer in trainer.optimizers],
    }


@torch.no_grad()
def restore_shard(trainer: pl.Trainer, shard: dict[str, Any]) -> None:
    """Set the result of ``capture_shard``, after the strategy wrapped the model.

    Raises:
        RuntimeError: If the model is sharded differently than the saved one.

    """
    own, saved = _tensors(trainer), shard["tensors"]
    names = sorted(own.keys() ^ saved.keys()) or [name for name in own if own[name].shape != saved[name].shape]
    if names:
        raise RuntimeError(
            f"The checkpoint contains a model that was not sharded as {type(trainer.strategy).__name__} shards it, for "
            f"example `{names[0]}`. Use the original wrapping and devices, or start from scratch with "
            "`lightning-green run --fresh -- ...`."
        )
    for name, part in own.items():
        part.copy_(saved[name])
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
