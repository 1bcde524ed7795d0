"""A planned exit from the middle of a fit, which Lightning would treat as a failure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import lightning.pytorch as pl

from lightning_green._lightning.replaced import replace_method

log = logging.getLogger(__name__)


def tear_down(trainer: pl.Trainer) -> None:
    """Call the ``teardown`` hooks of a fit in Lightning's order, to release what ``setup`` has acquired.

    The training state is saved and the exit is recorded by then, so an error in a hook is only logged.
    """
    module, datamodule = trainer.lightning_module, trainer.datamodule  # type: ignore[attr-defined]
    hooks = [partial(one.teardown, trainer, module, "fit") for one in trainer.callbacks]  # type: ignore[attr-defined]
    for hook in (*([] if datamodule is None else [partial(datamodule.teardown, "fit")]), *hooks):
        _log_error(hook)
    _log_error(partial(module.teardown, "fit"))


def _log_error(hook: Callable[[], None]) -> None:
    try:
        hook()
    except Exception as error:  # noqa: BLE001 - code of the script
        log.warning("A `teardown` hook raised %s: %s. The training state is saved.", type(error).__name__, error)


def skip_exception_hooks(trainer: pl.Trainer) -> None:
    """Make the next exception end the fit without ``on_exception`` hooks and without loggers finalized as failed.

    Lightning calls both for the callbacks, the data module and the loggers of the Trainer, and tears down the strategy
    afterwards. Until then the Trainer has none of them.
    """
    teardown = trainer.strategy.teardown
    callbacks, loggers = trainer.callbacks, trainer.loggers  # type: ignore[attr-defined]
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    trainer.callbacks, trainer.loggers, trainer.datamodule = [], [], None  # type: ignore[attr-defined]

    def restore_and_tear_down() -> None:
        undo()
        trainer.callbacks, trainer.loggers = callbacks, loggers  # type: ignore[attr-defined]
        trainer.datamodule = datamodule  # type: ignore[attr-defined]
        teardown()

    undo = replace_method(trainer.strategy, "teardown", restore_and_tear_down)
