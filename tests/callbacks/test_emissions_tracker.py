"""The tracker in real trainings: errors, messages, logged metrics, totals, and unchanged weights."""

import copy
import csv
import inspect
import logging
import math
import pickle
from decimal import Decimal
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.ledger.totals import PHASES
from lightning_green.run.coordinator import close_current_run
from tests.callbacks.green_kit import BATCHES, WATTS, clock, events, tracker, train
from tests.helpers.ledgers import total_of

POWERS = {"cpu": 100.0, "gpu": 150.0, "ram": 50.0}
NAMES = {
    "energy/kwh",
    "energy/cpu_kwh",
    "energy/gpu_kwh",
    "energy/ram_kwh",
    "energy/power_w",
    "carbon/intensity",
    "carbon/gco2e",
    "carbon/state",
    "carbon/elapsed_hours",
    *(f"energy/{phase}_kwh" for phase in PHASES),
}
TOTALS = {
    "energy/kwh",
    "carbon/gco2e",
    "carbon/counterfactual_gco2e",
    "carbon/saving_pct",
    "carbon/exits",
    "carbon/hours_waited",
}


WRONG = [
    *[({"meter": value}, "`meter` should be a Meter,.* got") for value in ("wattmeter", "", [3.0], True, int)],
    *[({"meter": value}, "`watts` should be finite and 0 or more, got") for value in (-3.0, math.nan, math.inf)],
    *[({"grid": value}, "`grid` should be a GridSignal, a number.* got") for value in ("", "green", True, b"x")],
    *[({"grid": value}, "number of gCO2e/kWh, 0 or more, got") for value in (-1, math.nan, math.inf)],
    ({"grid": "nowhere.csv"}, "should be a .csv or .parquet file.* got 'nowhere.csv'"),
    ({"grid": []}, "should contain at least one source"),
    ({"grid": {}}, "should contain `class_path`"),
    ({"grid": "typical"}, '`grid` should contain the zone, for example "typical:DE"'),
    ({"grid": "typical:Atlantis"}, "`zone` should be .*an ISO country.* got 'Atlantis'"),
    *[({"zone": value}, '`zone` should be a string such as "DE", or None, got') for value in (3, "", b"DE", ["DE"])],
    *[({"pue": v}, "`pue` should be a number of at least 1, got") for v in (0.9, -1, math.nan, math.inf, None)],
    ({"pue": "1.2"}, "`pue` should be a number of at least 1, a mapping by site or a CSV file that exists, got '1.2'"),
    ({"site": "oslo"}, "`site` should be a key of a mapping in `pue`"),
    *[({"clock": value}, "`clock` should be a SystemClock") for value in ("system", 5, type(clock()))],
    *[({"progress_bar": value}, "`progress_bar` should be True or False, got") for value in (1, "yes", None)],
]  # fmt: skip


@pytest.mark.parametrize("pue", [np.float32(1.25), Decimal("1.25"), torch.tensor(1.25)])
def test_numbers_of_other_types_are_converted(pue):
    assert EmissionsTracker(pue=pue)._options.pue == 1.25
    assert type(EmissionsTracker(pue=pue)._options.pue) is float


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_raises_at_construction_and_says_what_to_pass(arguments, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        EmissionsTracker(**arguments)


def test_every_argument_is_in_the_table_of_wrong_ones():
    assert set(inspect.signature(EmissionsTracker).parameters) == {name for given, _ in WRONG for name in given}


def test_it_can_be_copied_and_pickled():
    for original in (EmissionsTracker(), tracker()):
        for copied in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
            assert copied._options.pue == original._options.pue
            assert copied._options.meter == original._options.meter


def shown(caplog, first):
    """Return the lines of the block whose second line begins with ``first``."""
    blocks = [r.getMessage().splitlines() for r in caplog.records if r.getMessage().startswith("Lightning Green\n")]
    (lines,) = [block[1:] for block in blocks if block[1].split()[0] == first]
    return lines


def test_without_an_argument_it_says_what_is_missing(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(tmp_path, EmissionsTracker(clock=clock()))
    lines = shown(caplog, "Meter")
    assert len(lines) <= 6
    block = "\n".join(lines)
    assert any(text in block for text in ("measured", "modelled", "auto (starting)"))  # no fit waits for a slow start
    assert "Grid      none, so there is energy and no gCO2e; give `grid`, for example grid='typical:DE'" in block
    assert ", new" in block
    assert "Emissions  unknown: no `grid` is given" in "\n".join(shown(caplog, "Energy"))


def test_both_blocks_say_what_was_given_and_come_once(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(tmp_path, tracker(grid="typical:DE"))
    start, end = shown(caplog, "Meter"), shown(caplog, "Energy")
    assert start[0].split(None, 1)[1] == "constant power (other 300 W), modelled"
    assert "typical" in start[1]
    assert "average/" in start[1]
    assert "Germany" in start[1]
    assert end[0].split(None, 1)[1] == "1.200 kWh: other 1.200 kWh (modelled)"
    assert end[2].endswith("a saving of 0.0 %")
    assert [line.split()[0] for line in end] == ["Energy", "Emissions", "Run", "Intensity", "Time", "Ledger", "Report"]


@pytest.mark.parametrize("every", [1, 5])
def test_names_and_cadence_in_csv(tmp_path, every):
    logger = CSVLogger(tmp_path)
    train(tmp_path, tracker(meter=ConstantPowerMeter(POWERS)), logger=logger, log_every_n_steps=every)
    with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["energy/kwh"]]
    assert {name for name in rows[0] if name.startswith(("energy/", "carbon/"))} == NAMES
    due = [step for step in range(BATCHES) if (step + 1) % every == 0]
    steps = [int(row["step"]) for row in rows]
    assert steps[: len(due)] == due
    assert set(steps[len(due) :]) <= {BATCHES}  # and once at the end
    for row in rows[: len(due)]:
        hours = (int(row["step"]) + 1) / 6
        assert float(row["carbon/elapsed_hours"]) == pytest.approx(hours)
        assert float(row["energy/kwh"]) == pytest.approx(0.3 * hours)
        assert float(row["carbon/gco2e"]) == pytest.approx(30.0 * hours)
        assert float(row["energy/power_w"]) == pytest.approx(300.0)
        assert float(row["carbon/state"]) == 0.0


def test_names_in_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    train(tmp_path, tracker(meter=ConstantPowerMeter(POWERS)), logger=logger)
    read = EventAccumulator(logger.log_dir).Reload()
    assert {tag for tag in read.Tags()["scalars"] if tag.startswith(("energy/", "carbon/"))} == NAMES
    energy = [event.value for event in read.Scalars("energy/kwh")]
    assert energy == sorted(energy)
    assert energy[-1] == pytest.approx(0.3 * BATCHES / 6)


def test_a_marginal_signal_is_labelled_in_the_names(tmp_path):
    logger = CSVLogger(tmp_path)
    grid = FunctionSignal(lambda at: 100.0, kind="marginal/direct")
    watch = tracker(grid=grid)
    train(tmp_path, watch, logger=logger)
    header = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"carbon/gco2e_marginal", "carbon/intensity_marginal"} <= set(header)
    assert "carbon/gco2e" not in header
    assert watch.summary()["carbon/gco2e_marginal"] == pytest.approx(120.0)


def test_the_summary(tmp_path):
    watch = tracker(pue=1.5)
    with pytest.raises(RuntimeError, match=r"should be called after `trainer.fit` has started"):
        watch.summary()
    train(tmp_path, watch)
    summary = watch.summary()
    assert set(summary) >= TOTALS
    assert summary["energy/kwh"] == pytest.approx(1.2)
    assert summary["carbon/gco2e"] == summary["carbon/counterfactual_gco2e"] == pytest.approx(1.5 * 120.0)
    assert summary["energy/quality"] == {"other": "modelled"}
    assert (summary["carbon/exits"], summary["carbon/hours_waited"]) == (0, 0.0)
    assert watch.summary() == summary


def test_the_summary_in_the_middle_of_a_training(tmp_path):
    found = []

    class Look(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if trainer.global_step == 12:
                found.append(watch.summary()["energy/kwh"])

    watch = tracker()
    train(tmp_path, watch, Look())
    assert found == [pytest.approx(0.6)]


def test_the_weights_are_those_of_the_script_without_it(tmp_path):
    _, without = train(tmp_path / "without")
    _, alone = train(tmp_path / "alone", tracker())
    close_current_run()
    _, both = train(tmp_path / "both", tracker(), CarbonScheduler())
    assert without == alone == both


def test_each_fit_of_a_run_has_its_own_totals_and_the_run_sums_them(tmp_path):
    watch = tracker()
    train(tmp_path, watch)
    first = watch.summary()
    clock = watch.session.clock
    clock.sleep(3600)  # the script does something else
    train(tmp_path, watch)
    assert first["energy/kwh"] == pytest.approx(1.2)
    assert watch.summary()["energy/kwh"] == pytest.approx(1.2)
    assert [record["fit"] for record in events(tmp_path, "finished")] == [0, 1]
    books = total_of(events(tmp_path))
    assert books.kwh == pytest.approx(2.4)
    assert books.between_joules == pytest.approx(WATTS * 3600)
    assert books.seconds_by_state["running"] == pytest.approx(2 * 4 * 3600)
