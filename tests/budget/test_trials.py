"""Trials of a sweep with a shared budget, as processes, some of which are killed."""

import json
import signal
import sys
import time
from contextlib import ExitStack

import pytest

from lightning_green.budget import read_budget
from lightning_green.ledger.account import total
from lightning_green.ledger.ledger import read_ledger
from tests.helpers.processes import ROOT, Process

SCRIPT = ROOT / "tests" / "helpers" / "budget_trial.py"
LIMIT = 0.012  # kWh


def run_directory(folder, number):
    (found,) = (path.parent for path in (folder / str(number)).rglob("run.json"))
    return found


def wait_until(condition, seconds=200):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def used(folder):
    return read_budget(folder / "budget").usage.kwh


def run_trials(folder, count, killed):
    """Start trials at the same time and kill some of them once a quarter of the budget is used."""
    with ExitStack() as stack:
        trials = [
            stack.enter_context(Process([sys.executable, SCRIPT, folder, number, LIMIT], folder / f"out{number}"))
            for number in range(count)
        ]
        wait_until(lambda: len(list(folder.glob("ready-*"))) == count)
        (folder / "go").touch()
        wait_until(lambda: len(list((folder / "budget" / "runs").glob("[!.]*.json"))) == count)
        wait_until(lambda: used(folder) > LIMIT / 4)
        for trial in trials[:killed]:
            trial.kill()
        codes = [trial.wait(200) for trial in trials]
        return codes, [trial.printed for trial in trials]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize(("count", "killed"), [(4, 1), pytest.param(8, 2, marks=pytest.mark.nightly)])
def test_the_sum_is_that_of_the_ledgers_and_all_trials_end_within_a_check(tmp_path, count, killed):
    codes, printed = run_trials(tmp_path, count, killed)
    assert codes == [-signal.SIGKILL] * killed + [0] * (count - killed)
    assert all("ENDED" in text and "True" in text for text in printed[killed:])
    folders = [run_directory(tmp_path, number) for number in range(count)]
    ledgers = [total(read_ledger(folder)).kwh for folder in folders]
    status = read_budget(tmp_path / "budget")
    assert status.runs == count
    assert status.usage.kwh == pytest.approx(sum(ledgers), rel=1e-9)
    assert status.is_used
    for folder, kwh in zip(folders[:killed], ledgers, strict=False):  # as the other trials have written it
        run_id = json.loads((folder / "run.json").read_text())["run_id"]
        record = json.loads((tmp_path / "budget" / "runs" / f"{run_id}.json").read_text())
        assert record["usage"]["kwh"] == pytest.approx(kwh, rel=1e-9)
    reached = crossing([read_ledger(folder) for folder in folders])
    for folder in folders[killed:]:
        events = read_ledger(folder)
        (stop,) = [event for event in events if event.name == "budget" and event.action == "stop"]
        # its check after the limit was reached, and one in which the records of the others were being written
        checks = [event for event in events if event.name == "sample" and reached < event.time_utc < stop.time_utc]
        assert len(checks) <= 2
        assert next(event.reason for event in events if event.name == "finished").endswith("a budget is used")
        assert sum(event.name == "budget" and event.action == "warn" for event in events) == 1


def crossing(ledgers):
    """Return the time at which the sum of the last events of all ledgers reaches the limit."""
    events = sorted((event.time_utc, number, event) for number, ledger in enumerate(ledgers) for event in ledger
                    if event.measured is not None)  # fmt: skip
    kwh = [0.0] * len(ledgers)
    for time_utc, number, event in events:
        kwh[number] = event.measured.total_joules / 3.6e6
        if sum(kwh) >= LIMIT:
            return time_utc
    raise AssertionError("the budget was not used")
