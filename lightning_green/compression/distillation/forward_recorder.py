"""Inputs, outputs and features of a student's network and of its teacher, recorded by forward hooks."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from lightning_green.compression.network import find_network, uncompiled


class ForwardRecorder:
    """Record the last call of a student's network, and the features of layers of the student and the teacher.

    Calls of the student without gradients, such as for a metric, are not recorded, nor calls of the teacher's layers
    with gradients: the student may have the same layers.

    Attributes:
        arguments: Positional and keyword arguments of the network's last call; None before it.
        output: Return value of the network's last call.
        student: Last output of each recorded layer of the student, by the student's path.
        teacher: Last output of the matching layer of the teacher, by the student's path.

    """

    def __init__(self) -> None:
        self.arguments: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self.output: Any = None
        self.student: dict[str, Any] = {}
        self.teacher: dict[str, Any] = {}
        self._handles: list[RemovableHandle] = []

    def attach(self, network: nn.Module, teacher: Any, layers: Mapping[str, str]) -> None:
        """Register the hooks.

        Args:
            network: The student's network.
            teacher: The teacher, a module if there are layers.
            layers: Dotted paths inside the student's network to dotted paths inside the teacher.

        Raises:
            ValueError: If a path does not exist.

        """
        self._handles.append(network.register_forward_hook(self._call_hook(network), with_kwargs=True))
        for student_path, teacher_path in layers.items():
            layer = find_network(uncompiled(network), student_path, "layers")
            self._handles.append(layer.register_forward_hook(_feature_hook(layer, self.student, student_path, True)))
            layer = find_network(teacher, teacher_path, "layers")
            self._handles.append(layer.register_forward_hook(_feature_hook(layer, self.teacher, student_path, False)))

    def clear(self) -> None:
        """Forget the last call."""
        self.arguments, self.output = None, None
        self.student.clear()
        self.teacher.clear()

    def close(self) -> None:
        """Remove the hooks and forget everything."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.clear()

    # Hooks are functions and not methods: a deep copy of the network has the same hooks, without a copy of this object
    # and of the teacher. Calls of the copy are not recorded.
    def _call_hook(self, network: nn.Module) -> Callable[..., None]:
        watched = weakref.ref(network)

        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            if module is watched() and torch.is_grad_enabled():
                self.arguments, self.output = (args, kwargs), output

        return hook


def _feature_hook(layer: nn.Module, features: dict[str, Any], key: str, gradients: bool) -> Callable[..., None]:
    watched = weakref.ref(layer)

    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if module is watched() and torch.is_grad_enabled() == gradients:
            features[key] = output

    return hook
