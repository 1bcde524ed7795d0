"""The rows of a ``CSVLogger`` over several starts of a run: each is in its file once."""

from __future__ import annotations

import csv
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_green._lightning.namespaces import both
from lightning_green.utilities.files import is_local_path

log = logging.getLogger(__name__)

_MOVED = ".continued"  # suffix of the file while its logger is created


def is_local(logger: CSVLogger | TensorBoardLogger) -> bool:
    """Return whether a logger writes to a local directory; the rows of others cannot be continued."""
    return is_local_path(logger.log_dir)


def keep_rows(logger: CSVLogger) -> None:
    """Make a CSV logger append to its file, which it would delete otherwise. A row torn by a kill is dropped."""
    path = _path(logger)
    moved = path.with_name(path.name + _MOVED)  # if this process is killed in the meantime, the next one finds it there
    if path.exists():
        os.replace(path, moved)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory")
        writer = logger.experiment
    if moved.exists():
        os.replace(moved, path)
    _truncate(logger, writer, None)


def count_rows(trainer: pl.Trainer) -> dict[str, int]:
    """Write the buffered rows of the CSV loggers; return the number of rows of each file that can be read."""
    counted = {}
    for path, logger in _csv_loggers(trainer):
        try:
            logger.save()
            counted[str(path)] = _scan(path, None)[1] if path.exists() else 0
        except OSError as error:  # noqa: PERF203 - no reason to go without a training state
            log.warning("The rows of %s cannot be counted (%s), so a resume may repeat some.", path, error)
    return counted


def drop_rows(trainer: pl.Trainer, kept: dict[str, Any]) -> None:
    """Drop the rows of steps that are trained again.

    Args:
        trainer: The trainer, before it logs.
        kept: Number of rows of each file at the restored state, as ``count_rows`` returned it.

    """
    for path, logger in _csv_loggers(trainer):
        rows = kept.get(str(path))
        if isinstance(rows, int):
            _truncate(logger, logger.experiment, max(rows, 0))


def _csv_loggers(trainer: pl.Trainer) -> Iterator[tuple[Path, CSVLogger]]:
    for logger in trainer.loggers:
        if isinstance(logger, both(CSVLogger)) and is_local(logger):
            yield _path(logger), logger


def _path(logger: CSVLogger) -> Path:
    return Path(logger.log_dir) / "metrics.csv"


def _truncate(logger: CSVLogger, writer: Any, rows: int | None) -> None:
    """Cut the file after its first ``rows`` rows, or after the last complete one, and use its columns."""
    path = _path(logger)
    if not path.exists():
        return
    columns, _, end = _scan(path, rows)
    if not columns:  # the writer adds a header only to a new file
        path.unlink()
        return
    os.truncate(path, end)
    writer.metrics_keys = columns


def _scan(path: Path, limit: int | None) -> tuple[list[str], int, int]:
    """Return the columns of a CSV file, the number of its complete rows up to a limit, and the position after them."""
    columns: list[str] = []
    rows = end = 0
    with path.open("rb") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True)
        try:
            for fields in reader:
                if not lines.complete or (columns and rows == limit):
                    break
                if columns:
                    rows += 1
                columns, end = columns or fields, lines.position
        except csv.Error:  # the file ends within quotes
            pass
    return columns, rows, end


class _Lines:
    """The lines of a file, with the position after the last one and whether that one ends with a line break."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.position, self.complete = 0, True

    def __iter__(self) -> Iterator[str]:
        for line in self._file:
            self.position += len(line)
            self.complete = line.endswith(b"\n")
            yield line.decode("utf-8", "surrogateescape")
