"""Changed settings of optimizers and schedulers in a continued training, if the user requests them with ``--force``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import lightning.pytorch as pl


def keep_new_values(trainer: pl.Trainer, saved: dict[str, Any], current: dict[str, Any]) -> Callable[[], None]:
    """Return a function that sets changed settings again after a restore.

    The state of an optimizer or scheduler contains its settings, so a restore brings back the old ones. A learning rate
    that a scheduler has changed since is scaled, and the schedule continues from the new value.

    Args:
        trainer: The trainer, with the optimizers and schedulers of the script.
        saved: Recorded ``optimizer_fingerprint``.
        current: ``optimizer_fingerprint`` of the current script.

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
    group = optimizer.param_groups[index]  # a restore replaces the groups, so look it up again
    for name, value in changed.items():
        if name == "lr" and isinstance(old.get("lr"), (int, float)) and old["lr"]:
            group["lr"] *= float(value) / old["lr"]
            if "initial_lr" in group:
                group["initial_lr"] *= float(value) / old["lr"]
        elif name != "initial_lr":
            group[name] = value
