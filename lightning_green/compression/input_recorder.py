"""Recording of what a network is called with, by hooks."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_green.compression.call_description import CallDescription, DynamicSizes
from lightning_green.compression.inputs import canonical
from lightning_green.compression.network import uncompiled


class InputRecorder:
    """Record descriptions of a network's inputs: of its first call, then of its first call in training mode.

    Args:
        kinds: Number of different calls to record, such as those with other arguments in validation.
        dynamic: Dimensions whose size may differ in calls of one kind, besides that of the samples.

    Attributes:
        first: The description of the first call in training mode; None before the first call.
        calls: The descriptions of all recorded calls.

    """

    def __init__(self, kinds: int = 1, dynamic: DynamicSizes | None = None) -> None:
        self.first: CallDescription | None = None
        self.calls: list[CallDescription] = []
        self._kinds, self._dynamic = kinds, dynamic
        self._in_training = False
        self._problem: str | None = None
        self._handles: list[RemovableHandle] = []
        self._paused = False

    def attach(self, network: nn.Module) -> None:
        """Wait for the next calls of a network."""
        self.close()
        self._problem = None
        watched = weakref.ref(network)
        forwards: list[Any] = []  # of the calls that have begun

        def before(module: nn.Module, args: tuple[Any, ...]) -> None:
            if module is watched():  # a deep copy has the same hooks
                forwards.append(module.__dict__.get("forward"))

        def after(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if module is not watched() or not forwards:
                return
            # Under DDP, Lightning calls training_step as a `forward` that replaces itself: not a call of the network.
            is_forward = forwards.pop() is module.__dict__.get("forward")
            if is_forward and not self._paused and output is not None:
                self._record(uncompiled(module), args, kwargs, module.training)

        self._handles = [
            network.register_forward_pre_hook(before),
            network.register_forward_hook(after, with_kwargs=True, always_call=True),
        ]

    def close(self) -> None:
        """Remove the hooks; what was recorded is kept."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Record nothing inside the context, in which the network is traced and not called by the user."""
        self._paused = True
        try:
            yield
        finally:
            self._paused = False

    def state(self) -> dict[str, Any] | None:
        """Return the description for a checkpoint."""
        return None if self.first is None else self.first.state()

    def restore(self, state: dict[str, Any] | None) -> None:
        """Use the description of a checkpoint; the dynamic dimensions are those of this recorder at the next call."""
        if state is not None:
            self.first, self._in_training = CallDescription.from_state(state), True
            if self.first not in self.calls:
                self.calls.append(self.first)
            self._close_if_complete()

    def has_seen_call(self) -> bool:
        """Return whether the inputs are known.

        Raises:
            ValueError: If the arguments of the only calls so far are not supported.

        """
        if self.first is None:
            self.require_supported()
        return self.first is not None

    def require_supported(self) -> None:
        """Raise a ``ValueError`` if the arguments of a call are not supported."""
        if self._problem is not None:
            raise ValueError(self._problem)

    def require_call(self, network: nn.Module) -> None:
        """Raise a ``ValueError`` if the network has not been called."""
        if not self.has_seen_call():
            raise ValueError(
                f"`model` should be a network that training_step calls, but {type(network).__name__} has not been "
                "called as a whole, so its inputs are unknown. Call the module and not its parts, or its `forward`."
            )

    def _record(self, network: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], training: bool) -> None:
        try:
            inputs = canonical(network, args, kwargs)
            is_first = self.first is None or (training and not self._in_training)
            if is_first or not any(call.fits(inputs) for call in self.calls):
                described = CallDescription.of(network, inputs, self._dynamic)
                if not any(call.fits(inputs) for call in self.calls):
                    self.calls.append(described)
                if is_first:
                    self.first = described
        except ValueError as error:
            self._problem = str(error)
        self._in_training = self._in_training or training
        self._close_if_complete()

    def _close_if_complete(self) -> None:
        if self._in_training and len(self.calls) >= self._kinds:
            self.close()
