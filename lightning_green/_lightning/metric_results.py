"""The results of ``self.log`` in an epoch that is not complete, and the metrics that were published last."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.connectors.logger_connector.result import _Metadata, _ResultMetric, _Sync

from lightning_green._lightning.namespaces import same_package

# The last two distinguish the first batch of an epoch, at which means are reset, from the first one after a resume.
_LAST = ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics", "_first_loop_iter", "_current_fx")
_META = ("fx", "name", "prog_bar", "logger", "on_step", "on_epoch", "enable_graph", "add_dataloader_idx")


def logged_results(trainer: pl.Trainer) -> list[dict[str, Any]]:
    """Return the values that ``self.log`` accumulated in the training epoch, as plain Python and tensors."""
    saved = []
    for key, result in trainer.fit_loop.epoch_loop._results.items():
        meta = result.meta
        if meta.sync._group is not None:  # a process group cannot be saved
            continue
        one: dict[str, Any] = {"key": key, **{name: getattr(meta, name) for name in _META}}
        one |= {"reduce": meta.reduce_fx.__name__, "dataloader_idx": meta.dataloader_idx}
        one |= {"metric_attribute": meta.metric_attribute, "is_tensor": result.is_tensor}
        one |= {"sync": meta.sync._should, "rank_zero_only": meta.sync.rank_zero_only}
        one |= {"has_reset": result.has_reset, "updates": result._update_count}
        if result.is_tensor:
            one["value"] = result.value.detach().cpu().clone()
            one["batch_size"] = result.cumulated_batch_size if meta.is_mean_reduction else None
            one["last"] = result._forward_cache
        saved.append(one)
    return saved


def set_logged_results(trainer: pl.Trainer, saved: list[dict[str, Any]], metrics: dict[str, Any]) -> None:
    """Set the result of ``logged_results``.

    Args:
        trainer: The trainer.
        saved: The result of ``logged_results``.
        metrics: The torchmetrics objects of the module by name.

    """
    results, device = trainer.fit_loop.epoch_loop._results, trainer.strategy.root_device
    metadata, sync = same_package(trainer, _Metadata), same_package(trainer, _Sync)
    result_metric = same_package(trainer, _ResultMetric)  # the loop resets only results of its own class
    for one in saved:
        if not one["is_tensor"] and one["metric_attribute"] not in metrics:
            continue
        meta = metadata(
            **{name: one[name] for name in _META},
            reduce_fx=getattr(torch, one["reduce"]),
            dataloader_idx=one["dataloader_idx"],
            metric_attribute=one["metric_attribute"],
        )
        reduce = trainer.strategy.reduce
        meta.sync = sync(fn=reduce, _should=one["sync"], rank_zero_only=one["rank_zero_only"])
        result = result_metric(meta, one["is_tensor"])
        result.has_reset, result._update_count = one["has_reset"], one["updates"]
        if one["is_tensor"]:
            result.value, result._forward_cache = one["value"], one["last"]
            if one["batch_size"] is not None:
                result.cumulated_batch_size = one["batch_size"]
        else:
            result.value = metrics[one["metric_attribute"]]
        results[one["key"]] = result.to(device)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value.detach() if isinstance(value, torch.Tensor) else value


def last_metrics(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the last metrics of callbacks, loggers and the progress bar, and their position in the epoch."""
    connector = trainer._logger_connector
    trainer.callback_metrics  # noqa: B018 - reading it updates the connector's own
    return {name: _plain(getattr(connector, name)) for name in _LAST}


def set_last_metrics(trainer: pl.Trainer, saved: dict[str, Any]) -> None:
    """Set the result of ``last_metrics``."""
    connector = trainer._logger_connector
    for name, value in saved.items():
        setattr(connector, name, value)
