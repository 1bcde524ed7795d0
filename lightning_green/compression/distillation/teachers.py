"""Loading of teachers: modules, callables, or checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_green.compression.pruning.resizing import resize_to

Teacher = nn.Module | Callable[..., Any]


class Ensemble(nn.Module):
    """Several teachers. The mean of their logits is that of the geometric mean of their distributions.

    Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 1.

    Args:
        members: Modules and callables.

    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        super().__init__()
        self.members = list(members)
        self.modules_of_members = nn.ModuleList(one for one in members if isinstance(one, nn.Module))


def load_teacher(
    teacher: Teacher | str | Path | Sequence[Teacher], architecture: nn.Module | None = None
) -> nn.Module | Callable[..., Any]:
    """Return a teacher as a module or a callable.

    Args:
        teacher: A module or a callable, which is returned; the path of a state dict or a Lightning checkpoint, which
            is read with ``weights_only=True``; or several modules and callables.
        architecture: The network that a checkpoint is loaded into. Keys of the checkpoint may have a common prefix, and
            its layers may have fewer channels.

    Raises:
        TypeError: If the teacher is none of these.
        ValueError: If a checkpoint comes without an architecture or does not fit it.

    """
    if not isinstance(teacher, (str, Path)):
        if architecture is not None:
            raise ValueError("`teacher_model` is for a teacher that is a checkpoint; remove it.")
        if isinstance(teacher, (list, tuple)):
            if not teacher or not all(map(callable, teacher)):
                raise TypeError(f"`teacher` should contain modules or callables, got {teacher!r}.")
            return Ensemble(teacher)
        if not callable(teacher):
            raise TypeError(f"`teacher` should be a module, a callable or the path of a checkpoint, got {teacher!r}.")
        return teacher
    if architecture is None:
        raise ValueError(f"`teacher_model` should be the network that {str(teacher)!r} is loaded into, got None.")
    checkpoint = torch.load(teacher, map_location="cpu", weights_only=True)
    state = checkpoint.get("state_dict", checkpoint)
    shapes = {key: value.shape for key, value in architecture.state_dict().items()}
    keys = list(shapes)
    prefixes = [key.removesuffix(keys[0]) for key in state if key.endswith(keys[0])]
    for prefix in sorted(prefixes, key=len):
        if all(prefix + key in state and _fits(state[prefix + key].shape, shapes[key]) for key in keys):
            own = {key: state[prefix + key] for key in keys}
            resize_to(architecture, own)
            architecture.load_state_dict(own)
            return architecture
    raise ValueError(
        f"`teacher_model` should be the network of {str(teacher)!r}, but the checkpoint does not contain "
        f"the tensors of {type(architecture).__name__} ({', '.join(keys[:3])}, ...)."
    )


def _fits(stored: torch.Size, wanted: torch.Size) -> bool:
    """Return whether a stored tensor fits the architecture's, possibly with removed channels."""
    return len(stored) == len(wanted) and all(a <= b for a, b in zip(stored, wanted, strict=True))
