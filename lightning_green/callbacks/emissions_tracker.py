"""Energy and emissions of a training, in its ledger and in every logger."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

from lightning_green._lightning.loggers import logging_step, should_log
from lightning_green.callbacks._green import GreenCallback
from lightning_green.energy.meter import Meter
from lightning_green.energy.registry import build_meter
from lightning_green.grid.registry import GridLike
from lightning_green.ledger.ledger import iterate_ledger
from lightning_green.report.block import totals_block
from lightning_green.report.html import html_page
from lightning_green.report.run_report import read_run_report
from lightning_green.report.tables import decision_table, timeline_table
from lightning_green.run import loggers
from lightning_green.run.figures import empty_summary
from lightning_green.run.logger_records import log_page, log_tables, log_totals
from lightning_green.run.node_sync import summarize_nodes
from lightning_green.run.options import RunOptions
from lightning_green.run.pue import build_pue
from lightning_green.run.rewritten_files import build_grid_of_run, recorded_pue, while_rewritten
from lightning_green.utilities.clock import Clock


class EmissionsTracker(GreenCallback):
    r"""Measure the energy of a training and compute its emissions from the carbon intensity at that time.

    Emissions are the sum over time of energy x PUE x carbon intensity, idle and restart energy included, cumulative
    over every restart of the run. They go to every logger of the Trainer at its ``log_every_n_steps``:

    | metric | unit | meaning |
    | --- | --- | --- |
    | `energy/kwh` | kWh | all components, since the run's first start |
    | `energy/cpu_kwh` ... | kWh | one component: `cpu`, `gpu`, `ram` |
    | `energy/held_kwh` ... | kWh | one phase, such as `training`, `data_wait` or `held` |
    | `energy/power_w` | W | mean power since the last point |
    | `carbon/intensity` | gCO2e/kWh | of the grid, now |
    | `carbon/gco2e` | gCO2e | location-based emissions since the run's first start |
    | `carbon/state` |  | 0 running, 1 throttled, 2 held, 3 out |
    | `carbon/elapsed_hours` | h | since the run's first start, pauses included |

    Without a ``grid`` there is energy and no gCO2e: a zone is never guessed. With a marginal signal the names end in
    ``_marginal``. The totals are in the run's ledger, in ``summary`` and in the W&B summary. They cover all nodes,
    each of which has a meter; the run directory has to be on a file system that the nodes share.

    Args:
        meter: ``"auto"`` (the best source of each component), ``"nvml"``, ``"rapl"``, ``"codecarbon"``,
            ``"carbontracker"``, a number of watts, None for no meter, or a ``Meter``.
            The power of CPU and RAM is modeled if no sensor can be read; the start-up block and ``summary`` show
            the quality of each component.
        grid: Carbon intensity: a number in gCO2e/kWh, the path of a trace, ``"typical:DE"``, ``"auto:DE"``, a callable,
            or a ``GridSignal``.
        zone: Grid zone, for a ``grid`` that does not name one.
        pue: Power usage effectiveness of the data center, at least 1: energy of the facility per energy of the devices.
            A number, a mapping from sites to numbers, or the path of a CSV file with the columns ``datetime`` and
            ``pue``. See ``docs/pue.md``.
        clock: Clock of the run; the system clock by default.
        progress_bar: Show state, intensity, emissions so far and the next planned change in the progress bars of the
            Trainer, for example ``green=running 212 g/kWh, 1.3 kg, exit 13:40 UTC``.
        site: Key of a mapping in ``pue``; None for the environment variable ``LIGHTNING_GREEN_SITE``.

    Raises:
        ValueError: If an argument is out of its range.
        TypeError: If an argument is of a wrong type.
        ModuleNotFoundError: If the meter needs a package that is not installed.

    Examples:
        ```python
        from lightning_green import EmissionsTracker
        tracker = EmissionsTracker(grid="typical:DE")
        Trainer(callbacks=[tracker])
        ```

    """

    def __init__(
        self,
        meter: Meter | str | float | None = "auto",
        grid: GridLike = None,
        zone: str | None = None,
        pue: float | str | dict[str, float] = 1.0,
        clock: Clock | None = None,
        progress_bar: bool = True,
        site: str | None = None,
    ) -> None:
        found = while_rewritten(lambda: build_pue(pue, site), recorded_pue, "the last recorded PUE")
        check_options(grid, zone, meter)
        if not isinstance(progress_bar, bool):
            raise TypeError(f"`progress_bar` should be True or False, got {progress_bar!r}.")
        self.progress_bar = progress_bar
        super().__init__(
            RunOptions(grid=grid, zone=zone, meter=meter, pue=None if found == 1.0 else found, clock=clock)
        )

    def summary(self) -> dict[str, Any]:
        """Return the totals of the last fit: energy by component, emissions, the run-now baseline.

        They cover all restarts of that fit. In a script with several fits each has a summary; ``lightning-green status
        RUN_DIR`` shows their sum. Rank 0 has the totals of all nodes, and after the training every rank has them. Keys
        are the names of the metrics; unknown numbers are None, ``energy/quality`` separates measured from modeled
        energy, and ``carbon/saving_pct`` may be negative. A copy of this callback, which some frameworks train with,
        shares its totals with the original. A ``fast_dev_run`` is not measured: its energy and emissions are None.

        Raises:
            RuntimeError: If no ``fit`` has been started.

        """
        if self._last.fit is None and self._last.not_measured:
            return empty_summary()
        if self._last.fit is None:
            raise RuntimeError(
                "`summary()` should be called after `trainer.fit` has started. `validate`, `test` and `predict` are "
                "not measured."
            )
        return self._last.fit.last_summary or self._last.fit.session.summary()

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self._fit is not None and self.progress_bar:
            self._fit.show_progress()

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        if should_log(trainer) and self._fit is not None and trainer.loggers:
            loggers.log_to_all(trainer, self._fit.session.metrics(), logging_step(trainer))

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_end(trainer, pl_module)
        if self._fit is not None:
            summary = self._fit.last_summary = summarize_nodes(self._fit.session, self._fit.ranks)
            loggers.log_to_all(trainer, self._fit.session.metrics(), logging_step(trainer))
            loggers.summarize(trainer, summary)

    @override
    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        if self._fit is not None and self._fit.last_summary is not None and self._fit.ranks.is_rank_zero:
            self._fit.last_summary = self._fit.session.summary()  # with the final save, as the ledger has it
            loggers.summarize(trainer, self._fit.last_summary)
            log_totals(trainer, self._fit.last_summary)
            log_tables(trainer, self._tables)
            log_page(trainer, self._page)
        if self._fit is not None and (self._fit.last_summary is not None or self._fit.already_finished):
            path, record = self._fit.session.path, self._fit.session.record_on_disk
            rank_zero_info(totals_block(self.summary(), path, record))

    @override
    def settings(self) -> dict[str, Any]:
        return {"progress_bar": self.progress_bar}

    def _tables(self) -> dict[str, tuple[list[str], list[list[Any]]]]:
        """Return the tables of the fit over all its starts; none without a run directory."""
        session = None if self._fit is None else self._fit.session
        if session is None or session.path is None:
            return {}
        events = [event for event, _ in iterate_ledger(session.path, merge_samples=True) if event.fit == session.fit]
        return {"decisions": decision_table(events), "timeline": timeline_table(events)}

    def _page(self) -> str | None:
        """Return the report of the run; None without a run directory."""
        path = None if self._fit is None else self._fit.session.path
        return None if path is None else html_page([read_run_report(path)])


def check_options(grid: GridLike, zone: str | None, meter: Meter | str | float | None) -> None:
    """Raise at construction if ``grid``, ``zone`` or ``meter`` is wrong.

    Both are built again when the run starts, so that a callback stays small, picklable and serializable as YAML.
    """
    try:
        build_grid_of_run(grid, zone)
    except ValueError as error:
        raise _naming("grid", error) from error
    try:
        build_meter(meter)
    except ValueError as error:
        raise _naming("meter", error) from error


def _naming(argument: str, error: ValueError) -> ValueError:
    """Return an error whose message starts with the argument."""
    message = str(error)
    return ValueError(message if message.startswith(f"`{argument}`") else f"`{argument}`: {message}")
