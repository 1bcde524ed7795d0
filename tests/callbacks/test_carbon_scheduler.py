"""The scheduler in real trainings on a simulated clock: errors, messages, decisions, and unchanged weights."""

import copy
import csv
import inspect
import itertools
import logging
import math
import pickle
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_green import CarbonScheduler, EmissionsTracker
from lightning_green.run.coordinator import close_current_run
from tests.callbacks.green_kit import BATCHES, DIRTY_THEN_CLEAN, START, block, events, scheduler, states, train
from tests.helpers.traces import write_trace


@pytest.fixture
def trace(tmp_path):
    return write_trace(tmp_path / "trace.csv", DIRTY_THEN_CLEAN)


WRONG = [
    *[({"deadline": v}, "`deadline` should be a string such as .36h. or a timedelta") for v in (36, True, math.nan)],
    *[({"deadline": v}, "`deadline` should be a duration such as .36h.") for v in ("tomorrow", "", "-3h", "inf h")],
    *[({"deadline": value}, "`deadline` should be longer than nothing") for value in ("0h", timedelta(0))],
    ({"deadline": timedelta(-1)}, "`deadline` should not be negative"),
    ({"deadline": date(2030, 1, 1)}, "`deadline` should be a string"),
    ({"deadline": datetime(2030, 1, 1)}, "`deadline` should have a time zone"),
    *[({"on_pause": v}, '`on_pause` should be "auto", "hold" or "exit", got') for v in ("stop", None, True, ["hold"])],
    *[({"hold_power": v}, '`hold_power` should be a number of at least 0 and at most 1 or "measured", got')
      for v in (-0.1, 1.1, 300, math.nan, "0.3", None, True)],
    *[({"resume_cost": v}, '`resume_cost` should be a number of at least 0 hours or "measured", got')
      for v in (-0.1, math.nan, math.inf, "10m", None, True)],
    *[({"min_saving": v}, "`min_saving` should be a number of at least 0 and at most 1, got")
      for v in (-0.1, 1.1, math.nan, "measured", None)],
    *[({"every_n_steps": v}, "`every_n_steps` should be an integer of at least 1, got") for v in (0, 1.5, "1", True)],
    *[({"checkpoint_every": v}, "`checkpoint_every` should (be a|not be)") for v in ("soon", 30, timedelta(-1), True)],
    *[({"throttle": v}, '`throttle` should be None, "auto", .*an Actuator.* got')
      for v in ("fast", 3, True, [], [3])],
    *[({"max_slowdown": v}, "`max_slowdown` should be a number of at least 1, got")
      for v in (0.9, math.nan, math.inf, "1.1", None)],
    *[({"delay_price": v}, "`delay_price` should be a number of at least 0 gCO2e per hour, got")
      for v in (-1.0, math.nan, math.inf, "measured", None)],
    ({"grid": "green"}, "`grid` should be a GridSignal, a number"),
    ({"meter": "wattmeter"}, "`meter` should be a Meter"),
    *[({"verify": v}, "`verify` should be True or False, got") for v in (None, 1, "yes")],
    *[({"return_time": v}, "`return_time` should ") for v in (-1, math.nan, "soon", None, timedelta(-1))],
    *[({"price": v, "carbon_price": 0}, "`price` should be") for v in (math.nan, math.inf, True, [0.3], "none.csv")],
    ({"price": 0.3}, "`price` needs `carbon_price`"),
    ({"carbon_price": 0.1}, "`carbon_price` needs `price`"),
    *[({"price": 0.3, "carbon_price": v}, "`carbon_price` should be a number of at least 0 money per kg CO2e, got")
      for v in (-1.0, math.nan, "0.1")],
    ({"price": 0.3, "carbon_price": 0, "delay_price": 60}, "`delay_price` is in gCO2e, which have no value"),
    ({"zone": 3}, '`zone` should be a string such as "DE"'),
    ({"clock": "system"}, "`clock` should be a SystemClock"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_a_wrong_argument_raises_at_construction_and_says_what_to_pass(arguments, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        CarbonScheduler(**arguments)


def test_every_argument_is_in_the_table_of_wrong_ones():
    assert set(inspect.signature(CarbonScheduler).parameters) == {name for given, _ in WRONG for name in given}


def test_new_arguments_come_after_those_of_the_first_version():
    """Scripts may pass them by position."""
    assert [*inspect.signature(CarbonScheduler).parameters][12:] == [
        *("zone", "clock", "verify", "return_time", "price", "carbon_price"),
    ]


def test_it_can_be_copied_and_pickled(trace):
    for original in (CarbonScheduler(), scheduler(trace)):
        for copied in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
            assert copied._arguments == original._arguments


def test_without_an_argument_it_says_what_it_needs(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(tmp_path, CarbonScheduler(meter=300.0))
    shown = block(caplog)
    assert shown["Deadline"] == 'none, so the run does not wait; set one, for example deadline="36h"'
    assert "grid='typical:DE'" in shown["Grid"]
    assert shown["Pauses"].startswith("hold (no exit: nothing would restart the run; use `lightning-green run")
    assert 'set one, for example grid="typical:DE"' in shown["Next"]
    assert set(shown) == {"Meter", "Grid", "Folder", "Deadline", "Pauses", "Next"}


def test_early_stopping_is_named_beside_the_plan(tmp_path, trace, caplog):
    caplog.set_level(logging.INFO)
    stop = pl.callbacks.EarlyStopping("loss", patience=1, check_on_train_epoch_end=True)
    train(tmp_path, scheduler(trace, on_pause="hold"), stop)
    assert (
        "This plan is for all 3.2 h up to `max_epochs`. EarlyStopping may end the training after 1.2 h" in caplog.text
    )
    first = events(tmp_path, "decision")[0]
    assert first["work_hours"] - first["least_work_hours"] == pytest.approx(2.0)  # an epoch of twelve batches


def test_without_a_deadline_there_is_no_waiting_and_it_says_so(tmp_path, trace, caplog):
    caplog.set_level(logging.INFO)
    train(tmp_path, scheduler(trace, deadline=None))
    assert "does not wait" in block(caplog)["Deadline"]
    assert block(caplog)["Next"] == "continue"
    assert states(tmp_path) == {"running"}
    (decision,) = events(tmp_path, "decision")
    assert decision["action"] == "run"
    assert decision["reason"].startswith("Run without waiting: there is no deadline")
    assert events(tmp_path)[-1]["time_utc"] == (START + timedelta(hours=BATCHES / 6)).isoformat()


def test_without_a_grid_there_is_nothing_to_wait_for(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    train(tmp_path, scheduler(None))
    assert block(caplog)["Next"].startswith("continue: without `grid` the run does not wait")
    assert states(tmp_path) == {"running"}


def test_it_holds_until_the_clean_hours_and_harms_nothing(tmp_path, trace, caplog):
    caplog.set_level(logging.INFO)
    logger, tracker = CSVLogger(tmp_path / "held"), EmissionsTracker()
    _, weights = train(tmp_path / "held", scheduler(trace), tracker, logger=logger)
    shown = block(caplog)
    assert shown["Deadline"] == "2024-05-02 20:00 UTC, in 20 h"
    assert shown["Next"] == "a decision once the step time is measured"
    close_current_run()
    held = events(tmp_path / "held")
    began = next(record for record in held if record["event"] == "state" and record["state"] == "held")
    went_on = next(record for record in held if record["reason"].startswith("Resumed after"))
    assert went_on["event"] == "state"
    assert went_on["reason"].endswith(": 600 -> 50 gCO2e/kWh.")
    for sentence in (went_on["reason"], next(record["reason"] for record in held if record["event"] == "decision")):
        assert f": {sentence}" in caplog.text  # what is printed is in the ledger
    assert began["time_utc"] < (START + timedelta(hours=1.1)).isoformat()
    assert began["until"] == (START + timedelta(hours=4)).isoformat()
    assert went_on["time_utc"] >= began["until"]
    assert [record["event"] for record in held].count("decision") >= 1
    assert all(record["reason"] for record in held if record["event"] == "decision")
    summary = tracker.summary()
    assert summary["carbon/hours_waited"] == pytest.approx(
        (datetime.fromisoformat(went_on["time_utc"]) - datetime.fromisoformat(began["time_utc"])) / timedelta(hours=1)
    )
    assert summary["carbon/saving_pct"] > 50
    _, without = train(tmp_path / "without")
    assert weights == without
    with open(Path(logger.log_dir) / "metrics.csv", newline="") as file:
        seen = [
            (float(r["carbon/state"]), float(r["carbon/elapsed_hours"]))
            for r in csv.DictReader(file)
            if r["carbon/state"]
        ]
    waiting = [hours for state, hours in seen if state == 2.0]
    assert len(waiting) > 10  # while it is held, too
    assert max(after - before for before, after in itertools.pairwise(waiting)) <= 0.26
    assert {state for state, _ in seen} == {0.0, 2.0}
    assert seen[-1][0] == 0.0


def test_a_deadline_in_the_past(tmp_path, trace):
    past = START - timedelta(hours=1)
    with pytest.raises(ValueError, match=r"`deadline` should lie in the future, got 2024-05-01T23:00.*such as .36h."):
        train(tmp_path, scheduler(trace, deadline=past))


def test_a_deadline_in_another_time_zone(tmp_path, trace, caplog):
    caplog.set_level(logging.INFO)
    train(tmp_path, scheduler(trace, deadline=datetime(2024, 5, 2, 22, tzinfo=timezone(timedelta(hours=2)))))
    assert block(caplog)["Deadline"] == "2024-05-02 20:00 UTC, in 20 h"


def test_a_trace_that_ends_before_the_deadline(tmp_path, trace):
    with pytest.warns(UserWarning, match=r"intensities of trace trace.csv end at 2024-05-03 00:00 UTC.*a longer trace"):
        train(tmp_path, scheduler(trace, deadline="40h"))
    assert events(tmp_path)[-1]["event"] == "finished"


def test_work_that_does_not_fit_runs_now_and_says_so_once(tmp_path, trace):
    with pytest.warns(UserWarning, match=r"does not fit before the deadline: it will be \d.\d h late") as warned:
        train(tmp_path, scheduler(trace, deadline="2h"))
    assert sum("does not fit" in str(one.message) for one in warned) == 1
    assert states(tmp_path) == {"running"}
    assert [record for record in events(tmp_path, "warning") if "does not fit" in record["reason"]]


def test_a_training_without_a_limit_runs_on_and_says_why(tmp_path, trace):
    class End(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step >= 20

    with pytest.warns(UserWarning, match="Continuing without waiting: the Trainer has no `max_epochs`"):
        train(tmp_path, scheduler(trace), End(), max_epochs=-1)
    assert states(tmp_path) == {"running"}


def test_a_pause_that_saves_too_little_is_not_made(tmp_path, trace):
    train(tmp_path, scheduler(trace, min_saving=1.0))
    assert states(tmp_path) == {"running"}
    assert events(tmp_path, "decision")


@pytest.mark.parametrize("every", [1, 8])
def test_decisions_are_made_at_the_steps_asked_for(tmp_path, trace, every):
    train(tmp_path, scheduler(trace, every_n_steps=every))
    first = events(tmp_path, "decision")[0]
    assert first["global_step"] % every == 0
    assert first["global_step"] >= every


def test_a_grid_that_fails_means_run_now(tmp_path):
    def broken(at):
        raise OSError("the sensor is gone")

    train(tmp_path, scheduler(None, grid=broken))
    assert states(tmp_path) == {"running"}
    assert events(tmp_path)[-1]["event"] == "finished"
