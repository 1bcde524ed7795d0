"""The state of a module that Lightning's checkpoint does not contain, and the state in which ranks differ."""

from __future__ import annotations

import hashlib
from typing import Any

import lightning.pytorch as pl
import torch
from torch.nn.parameter import is_lazy

from lightning_green.resume.rank_differences import Part, value_digest


def weights_digest(pl_module: pl.LightningModule, samples: int = 64) -> str:
    """Return a digest of the weights, of up to ``samples`` evenly spaced elements of each parameter."""
    total = hashlib.blake2b(digest_size=16)
    for name, parameter in pl_module.named_parameters():
        total.update(name.encode())
        if isinstance(parameter, torch.nn.parameter.UninitializedParameter) or parameter.device.type == "meta":
            continue
        flat = parameter.detach().reshape(-1)
        total.update(value_digest(flat[:: max(1, flat.numel() // samples)]).encode())
    return total.hexdigest()


def full_digest(pl_module: pl.LightningModule) -> str:
    """Return a digest of all parameters and buffers; of a sharded module, of the part of this rank."""
    total = hashlib.blake2b(digest_size=16)
    for name, tensor in [*pl_module.named_parameters(), *pl_module.named_buffers()]:
        if not is_lazy(tensor):
            own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
            total.update(f"{name} {value_digest(own)}".encode())
    return total.hexdigest()


def buffer_digests(pl_module: pl.LightningModule) -> dict[str, str]:
    """Return a digest of every buffer."""
    return {name: value_digest(buffer) for name, buffer in pl_module.named_buffers()}


def changed_buffers(
    pl_module: pl.LightningModule, own: dict[str, str], reference: dict[str, str]
) -> dict[str, torch.Tensor]:
    """Return the buffers whose digests differ from those of rank 0.

    Args:
        pl_module: The module.
        own: The result of ``buffer_digests`` on this rank.
        reference: The result of ``buffer_digests`` on rank 0.

    """
    return {
        name: buffer.detach().cpu().clone()
        for name, buffer in pl_module.named_buffers()
        if reference.get(name) != own[name]
    }


def without_buffers(pl_module: pl.LightningModule, state_dict: dict[str, Any]) -> dict[str, Any]:
    """Return a ``state_dict`` with None in place of the tensors that are buffers of the module.

    A hook may have replaced a tensor, such as that of a buffer by its average over the steps.
    """
    buffers = dict(pl_module.named_buffers(remove_duplicate=False))
    return {name: None if _is_buffer(value, buffers.get(name)) else value for name, value in state_dict.items()}


def _is_buffer(value: Any, buffer: torch.Tensor | None) -> bool:
    if buffer is None or not isinstance(value, torch.Tensor) or is_lazy(value) or is_lazy(buffer):
        return False
    return {value.layout, buffer.layout} == {torch.strided} and value.data_ptr() == buffer.data_ptr()


def unsaved_buffers(pl_module: pl.LightningModule, before: dict[str, str]) -> dict[str, torch.Tensor]:
    """Return the buffers that are not in the module's ``state_dict`` and that changed since ``before``."""
    saved = set(pl_module.state_dict())
    return {
        name: buffer.detach().cpu().clone()
        for name, buffer in pl_module.named_buffers()
        if name not in saved and before.get(name) != value_digest(buffer)
    }


def set_parameters(pl_module: pl.LightningModule, parts: list[Part]) -> None:
    """Set the parameters in which this rank differs from rank 0, after DDP has copied those of rank 0.

    Args:
        pl_module: The module.
        parts: The result of ``differing_parts``.

    """
    parameters = dict(pl_module.named_parameters())
    with torch.no_grad():
        for keys, value in parts:
            if keys[0] == "state_dict" and keys[1] in parameters:
                parameters[keys[1]].copy_(value)


def set_buffers(pl_module: pl.LightningModule, saved: dict[str, torch.Tensor]) -> None:
    """Set the buffers by name; buffers that no longer exist are skipped.

    A buffer that no checkpoint contains and that has another shape, such as a cache that grows with its input, or that
    the script creates as None and fills later, is replaced.
    """
    buffers = {
        (f"{path}.{name}" if path else name): (module, name, buffer)
        for path, module in pl_module.named_modules()
        for name, buffer in module._buffers.items()
    }
    with torch.no_grad():
        for path, value in saved.items():
            module, name, buffer = buffers.get(path, (None, "", None))
            if module is None:
                continue
            if buffer is not None and not is_lazy(buffer) and buffer.shape == value.shape:
                buffer.copy_(value)
            elif path not in pl_module.state_dict():
                setattr(module, name, value.to(pl_module.device if buffer is None else buffer.device))


def pending_gradients(pl_module: pl.LightningModule) -> dict[str, torch.Tensor]:
    """Return the gradients that a module with manual optimization may be accumulating."""
    if pl_module.automatic_optimization:  # its accumulation windows are complete before a state is saved
        return {}
    named = pl_module.named_parameters()
    return {name: one.grad.detach().cpu().clone() for name, one in named if one.grad is not None}


def set_gradients(pl_module: pl.LightningModule, saved: dict[str, torch.Tensor]) -> None:
    """Set the result of ``pending_gradients``."""
    parameters = dict(pl_module.named_parameters())
    for name, gradient in saved.items():
        if name in parameters:
            parameters[name].grad = gradient.to(parameters[name].device)
