"""What ``torch.compile`` has to be told so that a compiled model computes what the same model computes without it."""

from __future__ import annotations

from collections.abc import Callable

from torch._functorch import config


def backward_without_autocast() -> Callable[[], None]:
    """Have backward passes compiled without autocast, as they run without ``torch.compile``; return what undoes it.

    By default a backward pass is compiled with the autocast of the forward around it, which lowers the gradients of
    modules that are kept in float32.
    """
    before = getattr(config, "backward_pass_autocast", None)
    if before != "same_as_forward":  # a choice of the user's, or a torch without the setting
        return lambda: None
    config.backward_pass_autocast = "off"  # noqa: S105 - no password

    def undo() -> None:
        config.backward_pass_autocast = before

    return undo
