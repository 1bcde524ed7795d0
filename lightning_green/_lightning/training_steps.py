"""The ``training_step`` of a module, wrapped for one fit."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl


def wrap_training_step(
    module: pl.LightningModule, before: Callable[[], None], after: Callable[[Any, Any], Any]
) -> None:
    """Call ``before()`` before each training step, and return ``after(result, batch)`` instead of its result.

    No hook of Lightning can change the loss of automatic optimization: ``on_before_backward`` receives the loss but
    cannot replace it. The wrapper is an attribute of this module alone, and ``unwrap_training_step`` removes it.
    """
    original = module.training_step

    @functools.wraps(original)  # Lightning reads the signature, which follows `__wrapped__`
    def training_step(*args: Any, **kwargs: Any) -> Any:
        before()
        result = original(*args, **kwargs)
        return after(result, args[0] if args else next(iter(kwargs.values())))

    module.training_step = training_step  # type: ignore[method-assign]


def unwrap_training_step(module: pl.LightningModule) -> None:
    """Remove the wrappers of ``wrap_training_step``, if there are any."""
    module.__dict__.pop("training_step", None)
