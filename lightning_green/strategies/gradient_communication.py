"""The communication of the gradients of one fit, and its state."""

# No `from __future__ import annotations`: DDP compares the annotations of a communication hook with classes.

from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_green.strategies.communication_options import CommunicationOptions
from lightning_green.strategies.gradient_formats import FORMATS, begin_mean
from lightning_green.strategies.low_rank import LowRankCompression
from lightning_green.strategies.traffic import Traffic, bytes_of


class GradientCommunication:
    """Sends the gradients of one rank, or averages the parameters instead, and counts the bytes.

    Post-local SGD (Lin et al., arXiv 1808.07217): from ``start_averaging_at_step`` on, each rank takes optimizer steps
    with its own gradients, and every ``average_every`` steps all ranks continue with the mean of their parameters.

    Args:
        module: The module that is trained.
        options: The settings.
        size: Number of ranks.

    Attributes:
        traffic: The bytes.
        low_rank: The low-rank compression; None without one.
        has_scaler: Whether a loss scaler looks for overflows.

    """

    def __init__(self, module: nn.Module, options: CommunicationOptions, size: int) -> None:
        self.traffic, self._options, self._module = Traffic(size, dist.get_backend()), options, module
        self.low_rank = LowRankCompression(options.compression_rank) if options.compression == "low_rank" else None
        self._names = parameter_names(module)
        self._steps: list[int] = []  # of each optimizer
        self._logged = [0, 0.0]  # the step and the bytes when metrics were logged last
        self._loss_scale, self.has_scaler = 1.0, False

    @property
    def step(self) -> int:
        """Number of optimizer steps; those of the optimizer with most steps."""
        return max(self._steps, default=0)

    @property
    def is_local(self) -> bool:
        """Whether each rank uses its own gradients in the next optimizer step."""
        return self._options.average_every is not None and self.step >= self._options.start_averaging_at_step

    @property
    def has_local_steps(self) -> bool:
        """Whether the parameters of the ranks may differ."""
        return self._options.average_every is not None and self.step > self._options.start_averaging_at_step

    @property
    def needs_hook(self) -> bool:
        """Whether something else than DDP's own all-reduce is to happen."""
        several = self.traffic.size > 1
        return several and (self._options.compression is not None or self._options.average_every is not None)

    def reduce(self, bucket: Any) -> torch.futures.Future[torch.Tensor]:
        """Replace the gradients of a bucket by what the optimizer gets."""
        gradients, compression = bucket.buffer(), self._options.compression
        if self.is_local:
            return _completed(gradients)
        if compression is None or self.step < self._options.start_compression_at_step:
            return begin_mean(gradients, self.traffic)
        if self.low_rank is None or gradients.layout != torch.strided:
            # A loss scaler has to see an overflow, which makes it choose a lower scale.
            return begin_mean(gradients, self.traffic, FORMATS.get(compression), clamps=not self.has_scaler)
        self.low_rank.reduce(self._gradients(bucket), self.traffic)
        return _completed(gradients)

    def _gradients(self, bucket: Any) -> list[tuple[str, torch.Tensor]]:
        """Return the names and the gradients of the parameters of a bucket."""
        parameters = bucket.parameters()
        # DDP keeps a complex gradient as real numbers, and returns only the first half of them.
        parts = torch.split(bucket.buffer(), [one.numel() * (2 if one.is_complex() else 1) for one in parameters])
        return [
            (self._names[id(parameter)], part if parameter.is_complex() else gradient)
            for parameter, gradient, part in zip(parameters, bucket.gradients(), parts, strict=True)
        ]

    def after_backward(self, model: DistributedDataParallel) -> None:
        """Count the bytes of a backward pass that DDP sends itself: without a hook the gradients, and the buffers."""
        if not self.needs_hook:
            self.traffic.count_all_reduce(bytes_of(gradient_parameters(model)))
        if model.find_unused_parameters and not model.static_graph:  # one integer for each: whether it was used
            self.traffic.count_all_reduce(4 * len(gradient_parameters(model)))
        if model.broadcast_buffers and model.modules_buffers:
            self.traffic.count_broadcast(bytes_of(model.modules_buffers))

    def after_step(self, index: int, optimizer: torch.optim.Optimizer) -> None:
        """Average the parameters of an optimizer after its step, if that is due."""
        local, every = self.is_local, self._options.average_every
        self._steps += [0] * (index + 1 - len(self._steps))
        self._steps[index] += 1
        if local and every and (self._steps[index] - self._options.start_averaging_at_step) % every == 0:
            parameters = [one for group in optimizer.param_groups for one in group["params"]]  # also those frozen since
            self.average([*parameters, *(self._module.buffers() if index == 0 else ())])

    @torch.no_grad()
    def average(self, tensors: list[torch.Tensor]) -> None:
        """Replace tensors by their means over the ranks; integers keep their values."""
        self.traffic.average([one for one in tensors if one.is_floating_point() or one.is_complex()])

    def set_loss_scale(self, scale: float) -> None:
        """Convert the errors to the factor by which the loss of the next backward pass is multiplied."""
        if self.low_rank is not None and scale != self._loss_scale:
            self.low_rank.rescale(scale / self._loss_scale)
        self._loss_scale = scale

    def metrics(self) -> dict[str, float]:
        """Return the bytes per step that a rank has sent since the last call, and the energy of all ranks so far."""
        (step, sent), self._logged = self._logged, [self.step, self.traffic.sent]
        joules = self.traffic.sent * self.traffic.size * self._options.joules_per_byte
        return {
            "communication/bytes_per_step": (self.traffic.sent - sent) / max(self.step - step, 1),
            "communication/kwh_modeled": joules / 3.6e6,
        }

    def reset(self) -> None:
        """Forget the steps and the state of the compression; the bytes remain counted."""
        self._steps, self._logged, self._loss_scale = [], [0, self.traffic.sent], 1.0
        if self.low_rank is not None:
            self.low_rank.load_state_dict({"errors": {}, "factors": {}})

    def state_dict(self) -> dict[str, Any]:
        """Return the state of this rank."""
        return {
            "steps": list(self._steps),
            "sent": self.traffic.sent,
            "logged": list(self._logged),
            "loss_scale": self._loss_scale,
            **(self.low_rank.state_dict() if self.low_rank is not None else {}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the result of ``state_dict``."""
        self._steps, self._logged = list(state["steps"]), list(state["logged"])
        self.traffic.sent, self._loss_scale = state["sent"], state["loss_scale"]
        if self.low_rank is not None and "errors" in state:
            self.low_rank.load_state_dict(state)

    def mean_state(self) -> dict[str, Any]:
        """Return a state for any rank; all ranks call it together.

        The next gradients of the low-rank compression depend on the errors through their mean over the ranks only.
        """
        state = self.state_dict()
        if "errors" in state:
            state["errors"] = {name: state["errors"][name].clone() for name in sorted(state["errors"])}
            Traffic(self.traffic.size).average(list(state["errors"].values()))
        return state


def communicate(state: GradientCommunication, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
    """Send a bucket of gradients; the communication hook of DDP."""
    return state.reduce(bucket)


def parameter_names(module: nn.Module) -> dict[int, str]:
    """Return the name of each parameter by its ``id``; the same whether a part of the module is compiled or not."""
    named = dict(module.named_parameters())
    plain = [name.replace("_orig_mod.", "") for name in named]
    names = plain if len({*plain}) == len(plain) else list(named)
    return {id(parameter): name for name, parameter in zip(names, named.values(), strict=True)}


def gradient_parameters(model: DistributedDataParallel) -> list[nn.Parameter]:
    """Return the parameters of which DDP sends the gradients."""
    ignored = model.parameters_to_ignore
    return [one for name, one in model.module.named_parameters() if one.requires_grad and name not in ignored]


def _completed(gradients: torch.Tensor) -> torch.futures.Future[torch.Tensor]:
    is_cuda = gradients.device.type == "cuda"
    future: torch.futures.Future[torch.Tensor] = torch.futures.Future(devices=[gradients.device] if is_cuda else None)
    future.set_result(gradients)
    return future
