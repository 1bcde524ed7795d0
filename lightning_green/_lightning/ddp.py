"""The gradient buckets and the communication of DDP, of which checkpoints contain nothing.

DDP sums gradients bucket by bucket. The first backward pass of a process uses a provisional layout of the buckets; all
later ones use the order in which the first one produced the gradients. With three or more ranks, the order in which the
gradients of the ranks are added depends on their positions in a bucket, and a communication hook may keep an error for
each bucket. A process that continues a training therefore begins with the layout of the process before it.
"""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from lightning_green._lightning.namespaces import both

_MISSING_GRADIENTS = "Expected to have finished reduction in the prior iteration"
"""Text of the error of which the next forward pass would report that parameters have no gradient."""


def ddp_model(trainer: pl.Trainer) -> DistributedDataParallel | None:
    """Return the model as DDP wraps it; None before that, and with another strategy."""
    model = trainer.strategy.model
    return model if isinstance(model, DistributedDataParallel) else None


def bucket_layout(trainer: pl.Trainer) -> list[list[int]]:
    """Return the numbers of the parameters in each bucket, in order; all ranks call it together between two batches.

    If the layout is provisional, DDP replaces it now instead of before the next forward pass.

    Returns:
        An empty list before the first backward pass, and if DDP never changes its layout.

    Raises:
        RuntimeError: If another rank is lost.

    """
    model = ddp_model(trainer)
    if model is None or model.static_graph:  # see `why_layout_unknown`
        return []
    try:
        model.reducer._rebuild_buckets()
    except RuntimeError as error:
        if _MISSING_GRADIENTS not in str(error):  # a lost rank, because the ranks compare their layouts
            raise
        return []
    assert model.logger is not None
    model.logger.set_runtime_stats_and_log()
    text = model._get_ddp_logging_data().get(  # type: ignore[no-untyped-call]
        "rebuilt_per_bucket_param_indices", ""
    )
    return [[int(number) for number in bucket.split()] for bucket in text.split(",")] if text else []


def set_bucket_layout(trainer: pl.Trainer, layout: list[list[int]]) -> bool:
    """Give the buckets the result of ``bucket_layout`` before the first batch; all ranks call it together.

    DDP is notified of the gradients in their order in the layout, as in its first backward pass, and sums zeros.

    Returns:
        Whether the buckets have that layout now.

    """
    model = ddp_model(trainer)
    if model is None or not layout:
        return not layout
    gradients = [(parameter, parameter.grad) for parameter in model.parameters()]
    sparse = _sparse_parameters(model)
    for parameter, _ in gradients:
        parameter.grad = _empty_gradient(parameter) if id(parameter) in sparse else None
    try:
        model.reducer.prepare_for_forward()
        model.reducer.prepare_for_backward([])
        start = torch.zeros((), device=trainer.strategy.root_device, requires_grad=True)
        order = [number for bucket in layout for number in bucket]
        _ProduceGradients.apply(start, model.reducer, order).backward()  # type: ignore[no-untyped-call]
    finally:
        for parameter, gradient in gradients:
            parameter.grad = gradient
    return bucket_layout(trainer) == layout


class _ProduceGradients(torch.autograd.Function):
    """Notifies DDP of gradients in a given order; DDP accepts that in a backward pass only."""

    @staticmethod
    def forward(ctx: Any, start: torch.Tensor, reducer: Any, order: list[int]) -> torch.Tensor:
        ctx.reducer, ctx.order = reducer, order
        return start.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        for number in ctx.order:
            ctx.reducer._autograd_hook(number)
        return gradient, None, None


def _sparse_parameters(model: torch.nn.Module) -> set[int]:
    embeddings = (torch.nn.Embedding, torch.nn.EmbeddingBag)
    return {id(one.weight) for one in model.modules() if isinstance(one, embeddings) and one.sparse}


def _empty_gradient(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter, layout=torch.sparse_coo)


def why_layout_unknown(trainer: pl.Trainer) -> str | None:
    """Return why the layout of the buckets cannot be restored, once DDP has wrapped the model; None if it can."""
    model = ddp_model(trainer)
    if model is None or not model.static_graph or (trainer.world_size < 3 and not model._comm_hooks):
        return None
    return (
        "`static_graph=True` sums the gradients of the first steps of each process in other buckets, and with more "
        "than two processes or a communication hook the sums then differ; remove `static_graph`"
    )


def communication_hooks(trainer: pl.Trainer) -> list[tuple[Any, Any]]:
    """Return the communication hooks of DDP, each with its state, in the order of their registration."""
    model = ddp_model(trainer)
    return [] if model is None else list(model._comm_hooks)


def model_averager(trainer: pl.Trainer) -> Any:
    """Return what averages the models of the ranks after local steps; None if nothing does."""
    strategy = trainer.strategy
    return strategy._model_averager if isinstance(strategy, both(DDPStrategy)) else None
