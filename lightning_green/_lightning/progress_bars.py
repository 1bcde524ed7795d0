"""Progress bars of a Trainer: a field next to the metrics, and a refresh while the training waits."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar

from lightning_green._lightning.namespaces import both
from lightning_green._lightning.replaced import call_all, replace_method

log = logging.getLogger(__name__)


def add_progress_field(trainer: pl.Trainer, name: str, text: Callable[[], str]) -> Callable[[], None]:
    """Show a text next to the metrics of every progress bar of a Trainer; return a function that removes it.

    It is returned by ``get_metrics`` of the bar and is no logged metric: loggers, ``callback_metrics`` and checkpoints
    do not contain it. A bar calls ``get_metrics`` when it refreshes.

    Args:
        trainer: The trainer, from ``setup`` on.
        name: Name of the field. A metric of the same name is shown instead.
        text: Returns the text; called at each refresh.

    """
    return call_all(*(_add_to(bar, name, text) for bar in _bars(trainer)))


def _add_to(bar: Any, name: str, text: Callable[[], str]) -> Callable[[], None]:
    get_metrics = bar.get_metrics  # of the bar's own class, which may be one of the user

    def with_field(trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        metrics: dict[str, Any] = get_metrics(trainer, pl_module)
        return metrics if name in metrics else {**metrics, name: text()}

    return replace_method(bar, "get_metrics", with_field)


def refresh_progress_bars(trainer: pl.Trainer) -> None:
    """Refresh the training bar between two batches, while no batch does.

    An error of a bar is logged: no picture is a reason to end a training. Before the first batch, a metric would be
    computed on this rank only while the others wait.
    """
    if trainer.world_size > 1 and trainer._logger_connector._first_loop_iter is None:
        return
    try:
        for bar in _bars(trainer):
            _refresh(bar, trainer)
    except Exception as error:  # noqa: BLE001 - of any bar
        log.debug("The progress bar cannot be refreshed: %r", error)


def _refresh(bar: Any, trainer: pl.Trainer) -> None:
    if isinstance(bar, both(TQDMProgressBar)) and bar.is_enabled:
        with suppress(TypeError):  # before the bar exists
            bar.train_progress_bar.set_postfix(bar.get_metrics(trainer, trainer.lightning_module))
    elif isinstance(bar, both(RichProgressBar)) and bar.is_enabled:
        bar._update_metrics(trainer, trainer.lightning_module)
        bar.refresh()


def _bars(trainer: pl.Trainer) -> Iterator[Any]:
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, both(ProgressBar)):
            yield callback
