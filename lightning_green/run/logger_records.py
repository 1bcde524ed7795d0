"""What loggers record once for a fit: the settings at its start, the totals and tables at its end."""

from __future__ import annotations

import importlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from numbers import Real
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_green._lightning.loggers import logging_step
from lightning_green._lightning.namespaces import both
from lightning_green.run.csv_rows import is_local
from lightning_green.utilities.files import write_json
from lightning_green.utilities.redaction import redact

log = logging.getLogger(__name__)

GROUP = "lightning_green"
"""Name of the group of settings in the loggers, and of the file next to the rows of a ``CSVLogger``."""

_SECRET = re.compile(r"(?i)key|token|secret|passw|credential|auth|header|cookie")
_QUERY = re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://[^\s?#]*)[?#]\S*")
_HIDDEN = "<hidden>"

_CHARTS = (("emissions", "gco2e", "Emissions so far (gCO2e)"), ("intensity", "intensity", "Intensity (gCO2e/kWh)"))


def plain(value: Any) -> Any:
    """Return a setting as JSON types, without secrets; objects as the name of their class.

    Examples:
        >>> plain({"deadline": timedelta(hours=1), "url": "https://me:pw@host", "levels": (1, 2)})["deadline"]
        '1:00:00'

    """
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return _without_queries(redact(value))
    if isinstance(value, (datetime, timedelta, Path)):
        return redact(str(value))
    if isinstance(value, Mapping):
        return {redact(str(name)): _HIDDEN if _SECRET.search(str(name)) else plain(one) for name, one in value.items()}
    if isinstance(value, (Sequence, set, frozenset)):
        return [plain(one) for one in value]
    return type(value).__name__


def _without_queries(text: str) -> str:
    """Return a text with the query of each address hidden, which may contain a key of any name."""
    return _QUERY.sub(rf"\1?{_HIDDEN}", text)


def log_settings(trainer: pl.Trainer, settings: Mapping[str, Any], continuing: bool) -> None:
    """Record the settings of a fit in every logger, on rank 0.

    W&B has them in its config, MLflow in its parameters, TensorBoard as text, and CSV in a file next to its rows.

    Args:
        trainer: The trainer.
        settings: Settings by callback, as ``plain`` returns them.
        continuing: Whether an earlier process has recorded them. Parameters and text are written once.

    """
    for logger in _loggers(trainer):
        with _errors_are_logged():
            if isinstance(logger, both(WandbLogger)):
                logger.experiment.config.update({GROUP: dict(settings)}, allow_val_change=True)
            elif isinstance(logger, both(CSVLogger)):
                _update_file(logger, settings=settings)
            elif isinstance(logger, both(MLFlowLogger)) and not continuing:
                logger.log_hyperparams({GROUP: dict(settings)})
            elif isinstance(logger, both(TensorBoardLogger)) and not continuing:
                _add_text(logger, "settings", settings, 0)


def log_totals(trainer: pl.Trainer, summary: Mapping[str, Any]) -> None:
    """Record the totals at the end of a fit in the loggers without a summary of their own, on rank 0."""
    numbers = {
        name: float(value) for name, value in summary.items() if isinstance(value, Real) and not isinstance(value, bool)
    }
    for logger in _loggers(trainer):
        with _errors_are_logged():
            if isinstance(logger, both(CSVLogger)):
                _update_file(logger, summary=plain(summary))
            elif isinstance(logger, both(MLFlowLogger)):
                logger.log_metrics(numbers, step=logging_step(trainer))
            elif isinstance(logger, both(TensorBoardLogger)):
                _add_text(logger, "summary", plain(summary), logging_step(trainer))


def log_tables(trainer: pl.Trainer, tables: Callable[[], Mapping[str, tuple[list[str], list[list[Any]]]]]) -> None:
    """Log tables, and a line chart of the emissions, to the W&B runs of a Trainer.

    Args:
        trainer: The trainer.
        tables: Returns columns and rows by name; called if there is a W&B run. A table ``timeline`` with the columns
            ``hours``, ``gco2e`` and ``intensity`` has charts as well.

    """
    with _errors_are_logged():
        runs = _wandb_runs(trainer)
        if not runs:
            return
        wandb = importlib.import_module("wandb")
        found = tables()
        for run in runs:
            logged: dict[str, Any] = {}
            for name, (columns, rows) in found.items():
                if rows:
                    logged[f"green/{name}"] = wandb.Table(columns=columns, data=rows)
            if "green/timeline" in logged:
                for name, column, title in _CHARTS:
                    logged[f"green/{name}"] = wandb.plot.line(logged["green/timeline"], "hours", column, title=title)
            if logged:
                run.log(logged)


def log_page(trainer: pl.Trainer, page: Callable[[], str | None]) -> None:
    """Log the HTML report of a run as an artifact of the W&B runs of a Trainer.

    Args:
        trainer: The trainer.
        page: Returns the page, or None without a run directory; called if there is a W&B run.

    """
    with _errors_are_logged():
        runs = _wandb_runs(trainer)
        if not runs:
            return
        wandb, text = importlib.import_module("wandb"), page()
        for run in runs if text is not None else ():
            artifact = wandb.Artifact(f"lightning-green-report-{run.id}", type="report")
            with artifact.new_file("report.html", encoding="utf-8") as file:
                file.write(text)
            run.log_artifact(artifact)


def _wandb_runs(trainer: pl.Trainer) -> list[Any]:
    return [logger.experiment for logger in _loggers(trainer) if isinstance(logger, both(WandbLogger))]


def _loggers(trainer: pl.Trainer) -> Iterator[Any]:
    yield from trainer.loggers if trainer.is_global_zero else []


def _add_text(logger: TensorBoardLogger, name: str, content: Mapping[str, Any], step: int) -> None:
    lines = "\n".join(f"    {line}" for line in json.dumps(content, indent=2).splitlines())  # a code block of Markdown
    logger.experiment.add_text(f"{GROUP}/{name}", lines, step)


def _update_file(logger: CSVLogger, **content: Any) -> None:
    if not is_local(logger):
        return
    path = Path(logger.log_dir) / f"{GROUP}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        known = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    write_json(path, {**known, **content}, durable=False)


@contextmanager
def _errors_are_logged() -> Iterator[None]:
    """Log an error of a logger: settings and totals are no reason to end a training."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - of any logger
        log.warning("A logger raised %s: %s. Training continues.", type(error).__name__, error)
