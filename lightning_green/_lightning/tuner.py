"""The tuner callbacks of Lightning, which search a batch size or a learning rate when a fit begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder
from lightning.pytorch.tuner.lr_finder import _determine_lr_attr_name, _LRFinder
from lightning.pytorch.utilities.parsing import lightning_getattr, lightning_setattr

from lightning_green._lightning.namespaces import both, same_package


def is_tuner_run(trainer: pl.Trainer) -> bool:
    """Return whether this ``fit`` only runs a tuner: ``Tuner(trainer).lr_find(...)`` or ``scale_batch_size(...)``."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    tuners = both(BatchSizeFinder, LearningRateFinder)
    return any(isinstance(one, tuners) and one._early_exit for one in callbacks)


def tuned_values(trainer: pl.Trainer) -> list[dict[str, Any]]:
    """Return the results of the tuner callbacks of a fit as plain Python, in the order of the callbacks."""
    module, found = trainer.lightning_module, list[dict[str, Any]]()
    for one in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(one, both(BatchSizeFinder)):
            size = lightning_getattr(module, one._batch_arg_name)
            found.append({"attribute": one._batch_arg_name, "value": size, "optimal": one.optimal_batch_size})
        elif isinstance(one, both(LearningRateFinder)):
            name = _determine_lr_attr_name(module, one._attr_name) if one._update_attr else None
            result = one.optimal_lr
            found.append(
                {
                    "attribute": name,
                    "value": None if name is None else lightning_getattr(module, name),
                    "results": None if result is None else result.results,
                }
            )
    return found


def restore_tuned_values(trainer: pl.Trainer, saved: list[dict[str, Any]]) -> Callable[[], None]:
    """Set the result of ``tuned_values`` and disable the search; return a function that enables it again."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    tuners = [one for one in callbacks if isinstance(one, both(BatchSizeFinder, LearningRateFinder))]
    for one, values in zip(tuners, saved, strict=False):
        if values["attribute"] is not None:
            lightning_setattr(trainer.lightning_module, values["attribute"], values["value"])
        if isinstance(one, both(BatchSizeFinder)):
            one.optimal_batch_size = values["optimal"]
        elif isinstance(one, both(LearningRateFinder)) and values["results"] is not None:
            finder = same_package(trainer, _LRFinder)
            one.optimal_lr = finder(one._mode, one._min_lr, one._max_lr, one._num_training_steps)
            one.optimal_lr.results = values["results"]
        one.on_fit_start = lambda *_: None  # type: ignore[method-assign]

    def undo() -> None:
        for one in tuners:
            one.__dict__.pop("on_fit_start", None)

    return undo
