# ruff: noqa: D102
"""A training with each of the tools that meter one, used as its documentation describes.

The names of a case are imported when it is created, so that a process has the imports of one tool only.
"""

from __future__ import annotations

import contextlib
import csv
import importlib.metadata
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

JOULES_PER_KWH = 3.6e6


class Nothing:
    """A training without a tool.

    Args:
        folder: Directory of all files of the tool; another process continues with them.
        epochs: Epochs of the training.
        component: ``"cpu"`` or ``"gpu"``: the component whose energy is compared with a counter.
        whole_node: Whether ours counts the energy of the whole machine, as the others do.

    """

    package: str | None = None

    def __init__(self, folder: Path, epochs: int, component: str = "cpu", whole_node: bool = False) -> None:
        self.folder, self.epochs, self.component, self.whole_node = folder, epochs, component, whole_node

    @classmethod
    def missing(cls) -> str | None:
        """Return why the case cannot run, or None."""
        if cls.package is None or importlib.util.find_spec(cls.package) is not None:
            return None
        return "not installed"

    @classmethod
    def version(cls) -> str | None:
        """Return the version of the tool."""
        return None if cls.package is None or cls.missing() else importlib.metadata.version(cls.package)

    def callbacks(self) -> list[pl.Callback]:
        """Return the callbacks of the Trainer."""
        return []

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        """Enclose the call of ``fit``."""
        yield

    def joules(self) -> float | None:
        """Return the energy of the component in all that the tool has written, or None."""
        return None


class CodeCarbon(Nothing):
    """``OfflineEmissionsTracker``: start before ``fit``, stop after it, with its defaults and a country."""

    package = "codecarbon"

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        from codecarbon import OfflineEmissionsTracker

        tracker = OfflineEmissionsTracker(country_iso_code="DEU", output_dir=str(self.folder))
        tracker.start()
        try:
            yield
        finally:
            tracker.stop()

    def joules(self) -> float | None:
        path = self.folder / "emissions.csv"
        if not path.exists():
            return None
        with path.open() as file:
            return sum(float(row[f"{self.component}_energy"]) for row in csv.DictReader(file)) * JOULES_PER_KWH


class CarbonTracker(Nothing):
    """``CarbonTracker``: its two calls in the hooks of an epoch, with its defaults and a directory of logs."""

    package = "carbontracker"

    def callbacks(self) -> list[pl.Callback]:
        from carbontracker.tracker import CarbonTracker

        tracker = CarbonTracker(epochs=self.epochs, log_dir=str(self.folder / "carbontracker"))
        return [
            pl.callbacks.LambdaCallback(
                on_train_epoch_start=lambda *_: tracker.epoch_start(), on_train_epoch_end=lambda *_: tracker.epoch_end()
            )
        ]

    def joules(self) -> float | None:
        """Return the energy of all epochs in its logs, without its PUE."""
        from carbontracker import parser

        energies = [
            log["components"].get(self.component, {}).get("avg_energy_usages (J)")
            for log in parser.parse_all_logs(str(self.folder / "carbontracker"))
        ]
        found = [float(energy.sum()) for energy in energies if energy is not None]
        return sum(found) if found else None


class Zeus(Nothing):
    """``ZeusMonitor``: a window around ``fit``."""

    package = "zeus"

    @contextlib.contextmanager
    def around(self) -> Iterator[None]:
        from zeus.monitor import ZeusMonitor

        monitor = ZeusMonitor()
        monitor.begin_window("training")
        try:
            yield
        finally:
            found = monitor.end_window("training")
            energies = found.gpu_energy if self.component == "gpu" else found.cpu_energy
            with (self.folder / "zeus.jsonl").open("a") as file:
                file.write(json.dumps(sum(energies.values()) if energies else None) + "\n")

    def joules(self) -> float | None:
        path = self.folder / "zeus.jsonl"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return sum(found) if found and None not in found else None


class Tracker(Nothing):
    """``EmissionsTracker``."""

    package = "lightning_green"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from lightning_green import EmissionsTracker

        self.tracker = EmissionsTracker(meter="auto:node" if self.whole_node else "auto", grid="typical:DE")

    @classmethod
    def version(cls) -> str | None:
        from lightning_green import __version__

        return __version__

    def callbacks(self) -> list[pl.Callback]:
        return [self.tracker]

    def joules(self) -> float | None:
        kwh = self.tracker.summary().get(f"energy/{self.component}_kwh")
        return None if kwh is None else kwh * JOULES_PER_KWH


class TrackerAndScheduler(Tracker):
    """``EmissionsTracker`` and ``CarbonScheduler``; as holding draws full power here, the plan is always to run."""

    def callbacks(self) -> list[pl.Callback]:
        from lightning_green import CarbonScheduler

        return [self.tracker, CarbonScheduler(deadline="36h", on_pause="hold", hold_power=1.0)]


class PlannedExit(Tracker):
    """A training that exits while the grid is carbon-intensive, and is started again by its supervisor."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        from lightning_green import EmissionsTracker

        self.tracker = EmissionsTracker(meter=300.0)

    def callbacks(self) -> list[pl.Callback]:
        from lightning_green import CarbonScheduler

        trace = self.folder / "trace.csv"
        hours = [f"2024-05-02T{hour:02}:00:00Z,{600 if hour < 4 else 50}" for hour in range(24)]
        trace.write_text("\n".join(["datetime,carbon_intensity", *hours]) + "\n")
        scheduler = CarbonScheduler(grid=str(trace), deadline="20h", on_pause="exit", resume_cost=0.05)
        return [self.tracker, scheduler]

    def joules(self) -> float | None:
        """Return the energy of waiting, which is that of the idle devices here."""
        return self.tracker.summary()["energy/held_kwh"] * JOULES_PER_KWH


CASES: dict[str, type[Nothing]] = {
    "nothing": Nothing,
    "codecarbon": CodeCarbon,
    "carbontracker": CarbonTracker,
    "zeus": Zeus,
    "tracker": Tracker,
    "tracker_scheduler": TrackerAndScheduler,
}
