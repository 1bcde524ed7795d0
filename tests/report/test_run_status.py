"""The structure that holds the state and the totals of a run, and its JSON."""

import json
from dataclasses import fields
from datetime import datetime, timezone

import pytest

from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.run_state import RunState, describe_next
from lightning_green.report.run_status import RunStatus, read_run_status, total_steps
from lightning_green.report.status import describe_run, format_saving
from tests.helpers.fake_runs import FakeRun, at

NOW = datetime(2024, 5, 1, 11, 40, tzinfo=timezone.utc)


def fit(**changes):
    values = {"max_epochs": 3, "max_steps": -1, "accumulate_grad_batches": 1, "batches": 10, "optimizers": 1, **changes}
    batches, optimizers = values.pop("batches"), values.pop("optimizers")
    return {
        "identity": {"limits": values},
        "data": {"training_batches": batches},
        "optimization": {"optimizers": [{"groups": []}] * optimizers},
    }


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (fit(), 30),
        (fit(accumulate_grad_batches=4), 9),
        (fit(max_steps=25), 25),
        (fit(max_epochs=-1), None),
        (fit(max_epochs=None, max_steps=25), 25),
        (fit(optimizers=2), None),
        (fit(batches=None, max_epochs=-1), None),
        (fit(batches="many"), None),
        (fit(accumulate_grad_batches=0), None),
        (fit(batches=float("inf")), None),
        ({}, None),
        (None, None),
    ],
)
def test_total_steps(record, expected):
    assert total_steps(record) == expected


def test_total_below_the_steps_done_is_unknown():
    assert total_steps(fit(), steps=31) is None


def test_json_has_the_fields_of_the_status_and_of_its_state(tmp_path):
    run = FakeRun(tmp_path / "run").add("started", 0).add("paused", 40, until=at(9))
    found = read_run_status(run.folder.path).to_json()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    names = {one.name for one in fields(RunStatus)} - {"path", "history"} | {"run_dir"}
    assert set(found) == names | {"step", "until", "reason", "is_supervised"}
    assert (found["state"], found["step"], found["until"]) == ("exited", 40, at(9))
    assert found["now"] == at(2)
    assert (found["waited_hours"], found["elapsed_hours"]) == (1.0, 2.0)


def test_saving_is_that_of_the_run_now_baseline(tmp_path):
    run = FakeRun(tmp_path / "run").add("started", 0).add("sample", 1).add("state", 1, state="held")
    run.add("state", 1).add("finished", 2)
    status = read_run_status(run.folder.path)
    (emissions,) = status.emissions
    assert emissions.saving_pct == pytest.approx(-100.0 / 3.0)
    text = describe_run(status)
    assert f"Run now   360.0 gCO2e: a saving of {format_saving(emissions.saving_pct, emissions.saving_std_pct)}" in text


def test_supervisor_of_the_command_restarts_its_further_runs(tmp_path):
    home = RunDirectory(tmp_path / "run")
    run = FakeRun(tmp_path / "run" / "runs" / "2").add("started", 0).add("paused", 40, until=at(9))
    assert not read_run_status(run.folder.path).state.is_supervised
    home.lock("supervisor")
    assert read_run_status(run.folder.path).state.is_supervised
    home.unlock()


def test_history_that_has_not_changed_is_used_again(tmp_path):
    run = FakeRun(tmp_path / "run").add("started", 0)
    first = read_run_status(run.folder.path)
    second = read_run_status(run.folder.path, earlier=first)
    assert second.history is first.history
    assert second == first
    run.add("sample", 7)
    assert read_run_status(run.folder.path, earlier=second).steps == 7


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (RunState("exited", 3, datetime(2024, 5, 2, 9, tzinfo=timezone.utc), "", True), "resumes 2024-05-02 09:00 UTC"),
        (
            RunState("exited", 3, datetime(2024, 5, 1, 13, 40, tzinfo=timezone.utc), ""),
            "rerun the command, planned for",
        ),
        (RunState("held", 3, NOW, ""), "resumes now"),
        (RunState("exited", 3), "rerun the command"),
        (RunState("failed", 3, is_supervised=True), "restarts soon"),
        (RunState("killed", 3), "rerun the command"),
        (RunState("running", 3), "ends about 12:00 UTC, in 20 min"),
        (RunState("finished", 3), ""),
        (RunState("not started"), ""),
    ],
)
def test_next_action(state, expected):
    end = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)
    found = describe_next(state, NOW, end)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


@pytest.mark.parametrize("is_recorded", [True, False])
def test_baseline_of_an_exit_uses_the_intensities_that_the_next_start_has_recorded(tmp_path, is_recorded):
    intensity = {"value": 300.0, "kind": "average/lifecycle"}
    run = FakeRun(tmp_path / "run").add("started", 0, intensity=intensity)
    since = run.clock.now()
    run.add("paused", 1, intensity=intensity, until=at(5))
    run.clock.sleep(4 * 3600)
    run.ledger.attempt = 2
    run.joules = 0.0
    away = {"since": since.isoformat(), "seconds": [0], "values": [500.0]} if is_recorded else None
    run.add("started", 1, intensity=intensity, away=away).add("sample", 2, intensity=intensity)
    run.add("finished", 3, intensity=intensity)
    (emissions,) = read_run_status(run.folder.path).emissions
    assert emissions.known_share == pytest.approx(1.0 if is_recorded else 1 / 3)
    if is_recorded:  # 0.3 kWh at 300, and 0.6 kWh in the five hours that were spent waiting
        assert emissions.run_now_gco2e == pytest.approx(0.3 * 300.0 + 0.6 * 500.0)
