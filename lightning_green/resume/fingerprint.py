"""Fingerprints of a training by content, which decide whether a script continues a paused training.

Every fingerprint consists of JSON types, so that it can be saved in ``run.json``.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.nn.parameter import is_lazy
from torch.utils.data import IterableDataset, Subset

from lightning_green._lightning.elapsed_time import validation_interval
from lightning_green._lightning.loaders import train_loaders
from lightning_green._lightning.namespaces import both
from lightning_green.resume.description import describe, qualified_name
from lightning_green.resume.stable_text import TIME
from lightning_green.strategies.sharded_state import is_sharded

_MAX_ATTRIBUTE_ELEMENTS = 32
_MAX_SHOWN = 80
_MAX_NESTED_SCHEDULERS = 12

_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)

_LIMITS = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
    "limit_train_batches",
    "limit_val_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
    "overfit_batches",
)
_SCHEDULER_STATE = {
    "optimizer",
    "last_epoch",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
    "verbose",
    "T_cur",
}
_HIDDEN_SCHEDULER_SETTINGS = ("_milestones", "_schedule_phases")


def fit_fingerprint(trainer: pl.Trainer, first_fit_of_module: bool = True) -> dict[str, Any]:
    """Return the module, its settings, the seed and the Trainer's limits, as they are when ``fit`` begins.

    Args:
        trainer: The Trainer, with the module attached, before any ``setup`` hook.
        first_fit_of_module: Whether no earlier fit of this process trained the module. A fit changes attributes of
            the module, so they are included for the first one only.

    Returns:
        A dict that JSON can represent, with the keys ``module``, ``parameters``, ``hparams``, ``data``, ``seed``,
        ``limits`` and, for the first fit, ``attributes``.

    """
    module, data = trainer.lightning_module, getattr(trainer, "datamodule", None)
    fingerprint: dict[str, Any] = {
        "module": qualified_name(type(module)),
        "parameters": _shapes(module, is_sharded(trainer)),
        "hparams": _hparams(module),
        "data": {
            "class": None if data is None else qualified_name(type(data)),
            "hparams": {} if data is None else _hparams(data),
        },
        "seed": _seed(),
        "limits": _limits(trainer),
    }
    if first_fit_of_module:
        fingerprint["attributes"] = {
            name: _masked(name, describe(value))
            for name, value in vars(module).items()
            if not name.startswith("_") and name not in _lightning_attributes() and _is_plain(value)
        }
    return fingerprint


def optimizer_fingerprint(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the settings of the optimizers and learning rate schedulers, and the number of processes.

    Args:
        trainer: The Trainer, from ``on_fit_start`` on and before the optimizer states are restored.

    Returns:
        A dict that JSON can represent, with the keys ``optimizers``, ``schedulers`` and ``world_size``.

    """
    return {
        "optimizers": [
            {
                "class": qualified_name(type(optimizer)),
                "groups": [_group(group) for group in _attribute(optimizer, "param_groups") or []],
            }
            for optimizer in trainer.optimizers
        ],
        "schedulers": [
            {
                **_scheduler(config.scheduler),
                "interval": describe(config.interval),
                "frequency": describe(config.frequency),
                "monitor": describe(config.monitor),
            }
            for config in trainer.lr_scheduler_configs
        ],
        "world_size": trainer.world_size,
    }


def data_fingerprint(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the sizes of the training data.

    Args:
        trainer: The Trainer, from ``on_train_start`` on.

    Returns:
        A dict that JSON can represent: ``training_batches`` of an epoch (``"unknown"`` without a length), and for each
        training loader its batch size (``batch_sizes``, None without one), the length of its dataset (``samples``,
        ``"unknown"`` without one) and the indices of a ``torch.utils.data.Subset`` (``subsets``). Loaders that are
        reloaded every few epochs may have other sizes then, so these are ``"reloaded"``.

    """
    batches = trainer.num_training_batches
    combined = train_loaders(trainer)
    loaders = [] if combined is None else list(combined.flattened)
    if _attribute(trainer, "reload_dataloaders_every_n_epochs"):
        sizes = dict.fromkeys(("training_batches", "samples", "subsets"), "reloaded")
        return {"batch_sizes": [_batch_size(loader) for loader in loaders], **sizes}
    return {
        "training_batches": int(batches) if math.isfinite(batches) else "unknown",
        "batch_sizes": [_batch_size(loader) for loader in loaders],
        "samples": [_samples(loader) for loader in loaders],
        "subsets": [describe(_subset(getattr(loader, "dataset", None))) for loader in loaders],
    }


def _subset(dataset: Any) -> Any:
    """Return the indices of a subset; other datasets may shuffle theirs."""
    return dataset.indices if isinstance(dataset, Subset) else None


def differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Return the settings in which two fingerprints differ, as readable sentences.

    Args:
        saved: The fingerprint that was saved when the training started.
        current: The fingerprint of this training. Only keys that both contain are compared.

    Returns:
        A sentence for each difference, sorted by key; empty if there is none.

    Examples:
        >>> differences({"hparams": {"lr": 0.01, "layers": 2}}, {"hparams": {"lr": 0.02}, "seed": 1})
        ['hparams.layers: 2 then, absent now', 'hparams.lr: 0.01 then, 0.02 now']

    """
    return [
        sentence for key in sorted(saved.keys() & current.keys()) for sentence in _compare(key, saved, current, key)
    ]


def _attribute(value: Any, name: str) -> Any:
    """Return an attribute; None if there is none or it cannot be read."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a user's property may raise anything
        return None


def _shapes(module: torch.nn.Module, sharded: bool) -> dict[str, Any]:
    """Return the shapes of the parameters by name; empty for a sharded model, where they depend on the rank."""
    return {
        name: "uninitialized" if is_lazy(one) else [] if sharded else list(one.shape)
        for name, one in module.named_parameters()
    }


def _hparams(owner: Any) -> dict[str, Any]:
    described = describe(_attribute(owner, "hparams") or {})
    return _flatten(described) if isinstance(described, dict) else {"hparams": described}


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a dict with dotted keys in place of nested dicts."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = _masked(key, value)
    return flat


def _masked(name: str, value: Any) -> Any:
    """Return the value of a setting, or a digest if its name indicates a secret."""
    is_secret = isinstance(value, str) and _SECRET.search(name) is not None
    return f"secret {hashlib.blake2b(value.encode(), digest_size=3).hexdigest()}" if is_secret else value


def _seed() -> Any:
    seed = os.environ.get("PL_GLOBAL_SEED")
    if seed is None:
        return None
    try:
        return describe(int(seed))
    except ValueError:
        return describe(seed)


def _limits(trainer: pl.Trainer) -> dict[str, Any]:
    limits = {name: describe(_attribute(trainer, name)) for name in _LIMITS}
    interval = validation_interval(trainer)
    if interval is not None:  # the Trainer then has no `val_check_interval`
        limits["val_check_interval"] = f"{interval} seconds"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, both(GradientAccumulationScheduler)):  # it sets the Trainer's value during the training
            limits["accumulate_grad_batches"] = describe(callback.scheduling)
    return limits


@functools.lru_cache
def _lightning_attributes() -> frozenset[str]:
    return frozenset(vars(pl.LightningModule()))


def _is_plain(value: Any) -> bool:
    scalars = (bool, int, float, str, np.generic, type(None))
    if isinstance(value, (list, tuple)):
        return len(value) <= _MAX_ATTRIBUTE_ELEMENTS and all(isinstance(one, scalars) for one in value)
    return isinstance(value, scalars)


def _group(group: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a parameter group."""
    settings = _settings(group, {"params", "param_names"})
    if settings.get("initial_lr") == settings.get("lr"):  # added by a scheduler; one change is reported once
        settings.pop("initial_lr", None)
    parameters = group.get("params")
    return {"parameters": len(parameters) if isinstance(parameters, (list, tuple)) else None, **settings}


def _settings(values: Mapping[str, Any], excluded: set[str]) -> dict[str, Any]:
    """Return the described settings among named values: numbers, strings, functions and containers of them."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name in excluded:
            continue
        described = describe(_number(value))
        if not (isinstance(described, str) and described.startswith(("object ", "module "))):
            kept[str(name)] = described
    return kept


def _number(value: Any) -> Any:
    """Return tensors of one element as numbers, also in lists; optimizers take a learning rate as a tensor."""
    if isinstance(value, (list, tuple)):
        return [_number(one) for one in value]
    try:
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            return value.item()
    except Exception:  # noqa: BLE001 - a meta or sharded tensor has no value here
        return value
    return value


def _scheduler(scheduler: Any, depth: int = 0) -> dict[str, Any]:
    """Return the class and the settings of a scheduler, without its running state."""
    own = getattr(scheduler, "__dict__", {})
    hidden = {name.strip("_"): own[name] for name in _HIDDEN_SCHEDULER_SETTINGS if name in own}
    plain = {name: value for name, value in own.items() if not name.startswith("_")}
    described = {"class": qualified_name(type(scheduler)), **_settings({**hidden, **plain}, _SCHEDULER_STATE)}
    inner = own.get("_schedulers")
    if isinstance(inner, (list, tuple)) and depth < _MAX_NESTED_SCHEDULERS:  # SequentialLR, ChainedScheduler
        described["schedulers"] = [_scheduler(one, depth + 1) for one in inner]
    return described


def _batch_size(loader: Any) -> int | None:
    for owner in (loader, _attribute(loader, "batch_sampler")):
        size = _attribute(owner, "batch_size")
        if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
            return int(size)
    return None


def _samples(loader: Any) -> int | str:
    dataset = _attribute(loader, "dataset")
    if dataset is None or isinstance(dataset, IterableDataset):
        return "unknown"
    try:
        return len(dataset)
    except Exception:  # noqa: BLE001 - a dataset need not have a length
        return "unknown"


_ABSENT = object()


def _compare(path: str, saved: Any, current: Any, key: Any) -> Iterator[str]:
    """Yield the differences of one entry of two dicts or lists."""
    then, now = (one.get(key, _ABSENT) if isinstance(one, dict) else one[key] for one in (saved, current))
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys(), key=str):
            yield from _compare(f"{path}.{name}", then, now, name)
    elif _are_alike_sequences(then, now) and any(isinstance(item, (dict, list, tuple)) for item in (*then, *now)):
        for index in range(len(then)):
            yield from _compare(f"{path}[{index}]", then, now, index)
    elif then != now and not _is_same_time(then, now):
        yield "{}: {} then, {} now".format(path, *_shown(then, now))


def _are_alike_sequences(then: Any, now: Any) -> bool:
    return isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)) and len(then) == len(now)


def _is_same_time(then: Any, now: Any) -> bool:
    """Return whether one value is a time stamp and the other a number.

    A constant close to the time of the first start is not close to the time of a later restart.
    """
    return (then == TIME and isinstance(now, (int, float))) or (now == TIME and isinstance(then, (int, float)))


def _shown(then: Any, now: Any) -> tuple[str, str]:
    """Return two different values as short texts that differ."""
    texts = ["absent" if one is _ABSENT else str(one) for one in (then, now)]
    if "" in texts or texts[0] == texts[1]:  # 1 and "1"
        texts = ["absent" if one is _ABSENT else repr(one) for one in (then, now)]
    pairs = enumerate(zip(*texts, strict=False))
    start = next((index for index, (one, other) in pairs if one != other), min(map(len, texts)))
    start = 0 if start < _MAX_SHOWN - 10 else start - 20
    return _cut(texts[0], start), _cut(texts[1], start)


def _cut(text: str, start: int) -> str:
    shown = text if start == 0 else f"...{text[start:]}"
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 3]}..."
