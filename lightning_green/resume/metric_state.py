"""The metrics of an incomplete epoch: means of ``self.log``, torchmetrics objects, and the last published metrics."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_green._lightning.metric_results import (
    last_metrics,
    logged_results,
    set_last_metrics,
    set_logged_results,
)


def capture_metrics(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the metrics that the current epoch accumulated, which Lightning does not save."""
    return {
        "means": logged_results(trainer),
        "last": last_metrics(trainer),
        "metrics": {name: _metric_state(metric) for name, metric in _metrics(trainer.lightning_module).items()},
    }


def restore_metrics(trainer: pl.Trainer, saved: dict[str, Any]) -> None:
    """Set the result of ``capture_metrics``; metrics that no longer exist are skipped."""
    metrics = _metrics(trainer.lightning_module)
    for name, state in saved["metrics"].items():
        if name in metrics:
            _set_metric_state(metrics[name], state)
    set_logged_results(trainer, saved["means"], metrics)
    set_last_metrics(trainer, saved["last"])


def restore_last_metrics(trainer: pl.Trainer, saved: dict[str, Any]) -> None:
    """Set the last published metrics in the result of ``capture_metrics``, which scripts read after a fit."""
    set_last_metrics(trainer, saved["last"])


def _metrics(pl_module: pl.LightningModule) -> dict[str, Metric]:
    for module in pl_module.modules():
        if isinstance(module, MetricCollection):
            module.items(copy_state=False)  # updates the members of a compute group
    return {name: module for name, module in pl_module.named_modules() if isinstance(module, Metric)}


def _metric_state(metric: Metric) -> dict[str, Any]:
    values = {name: getattr(metric, name) for name in metric._defaults}
    return {
        "values": {name: _copy(value) for name, value in values.items()},
        "updates": metric._update_count,
        "computed": metric._computed if isinstance(metric._computed, Tensor) else None,
    }


def _set_metric_state(metric: Metric, state: dict[str, Any]) -> None:
    for name, value in state["values"].items():
        if name in metric._defaults:
            setattr(metric, name, _to(value, metric.device))
    metric._update_count = state["updates"]
    metric._computed = _to(state["computed"], metric.device)


def _copy(value: Any) -> Any:
    return [item.detach().cpu() for item in value] if isinstance(value, list) else value.detach().cpu().clone()


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, list):
        return [item.to(device) for item in value]
    return value.to(device) if isinstance(value, Tensor) else value
