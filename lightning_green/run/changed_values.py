"""New settings of optimizers and schedulers in a training that continues, where the user asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl


def keep_new_values(trainer: pl.Trainer, saved: dict[str, Any], current: dict[str, Any]) -> Callable[[], None]:
    """Remember the settings that a script has changed, and return what sets them again after a restore.

    A restored optimizer or scheduler has its old settings: they are part of its state. A learning rate that a scheduler
    has changed in the meantime is scaled, so the schedule continues from the new value.

    Args:
        trainer: The trainer, with the optimizers and schedulers that the script has made.
        saved: The recorded ``optimizer_fingerprint``.
        current: That of the script as it is now.

    """
    setters: list[Callable[[], None]] = []
    for optimizer, then, now in zip(
        trainer.optimizers, saved.get("optimizers", []), current.get("optimizers", []), strict=False
    ):
        groups = zip(optimizer.param_groups, then["groups"], now["groups"], strict=False)
        for index, (group, old, new) in enumerate(groups):
            changed = {name: group[name] for name in new if name in group and old.get(name) != new[name]}
            setters.append(partial(_set_in_group, optimizer, index, changed, old))
    configs = trainer.lr_scheduler_configs
    for config, then, now in zip(configs, saved.get("schedulers", []), current.get("schedulers", []), strict=False):
        own = config.scheduler.__dict__
        changed = {name: own[name] for name in now if name in own and then.get(name) != now[name]}
        setters.append(partial(own.update, changed))

    def set_all() -> None:
        for setter in setters:
            setter()

    return set_all


def _set_in_group(optimizer: Any, index: int, changed: dict[str, Any], old: dict[str, Any]) -> None:
    group = optimizer.param_groups[index]  # not the one before the restore, which makes new ones
    for name, value in changed.items():
        if name == "lr" and isinstance(old.get("lr"), (int, float)) and old["lr"]:
            group["lr"] *= float(value) / old["lr"]
            if "initial_lr" in group:
                group["initial_lr"] *= float(value) / old["lr"]
        elif name != "initial_lr":
            group[name] = value
