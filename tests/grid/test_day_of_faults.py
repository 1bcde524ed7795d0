"""A run during a day of faults ends with a correct ledger, correct emissions and exact weights."""

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from tests.grid.day_of_faults import HOLD_POWER, START, WATTS, truth
from tests.helpers.fake_grid import TOKEN
from tests.helpers.ledgers import last_state_of, read_records

pytestmark = [pytest.mark.slow, pytest.mark.nightly, pytest.mark.xdist_group("day_of_faults")]

ROOT = Path(__file__).resolve().parents[2]
STEPS = 48


def start(folder, mode):
    environment = {
        **os.environ,
        "LIGHTNING_GREEN_RUN_DIR": str(folder / "run"),
        "LIGHTNING_GREEN_SUPERVISED": str(os.getpid()),
        "ELECTRICITYMAPS_API_TOKEN": TOKEN,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    command = [sys.executable, "-m", "tests.grid.day_of_faults", str(folder), mode]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def run_to_the_end(folder, mode):
    """Start the training, and start it again at the planned time after each exit, as the supervisor does."""
    (folder / "run").mkdir(parents=True)
    output = ""
    for _ in range(12):
        ended = start(folder, mode)
        output += ended.stdout + ended.stderr
        if ended.returncode != 75:
            break
        until = datetime.fromisoformat(last_state_of(read_records(folder / "run"))["until"])
        (folder / "run" / "clock").write_text(f"{until.timestamp():020.6f}\n")
    assert ended.returncode == 0, output[-4000:]
    return json.loads((folder / "result.json").read_text()), read_records(folder / "run"), output


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("day")
    return {mode: run_to_the_end(folder / mode, mode) for mode in ("reference", "day", "hold", "blind")}


def time_of(record):
    return datetime.fromisoformat(record["time_utc"])


def true_mean(start, end):
    """Return the exact mean of the truth, which is constant within each hour."""
    at, total = start, 0.0
    while at < end:
        until = min(end, at.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1))
        total += truth(at) * (until - at).total_seconds()
        at = until
    return total / (end - start).total_seconds()


def intervals(ledger):
    """Return ``(start, end, joules, state)`` of each metered interval in the ledger."""
    found, before = [], None
    for record in ledger:
        if "joules" not in record:
            continue
        same = before is not None and before["attempt"] == record["attempt"]
        joules = record["joules"]["other"]["value"] - (before["joules"]["other"]["value"] if same else 0.0)
        at = time_of(record)
        begin = time_of(before) if same else at - timedelta(seconds=record.get("startup_s", 0.0))
        state = "held" if same and before["state"] == "held" else "running"
        found.append((begin, at, joules, state))
        before = record
    return found


@pytest.mark.parametrize("mode", ["day", "hold", "blind"])
def test_weights_equal_those_of_the_uninterrupted_run(runs, mode):
    result, _, output = runs[mode]
    assert result["weights"] == runs["reference"][0]["weights"]
    assert result["steps"] == STEPS
    assert TOKEN not in output


@pytest.mark.parametrize("mode", ["reference", "day", "hold"])
def test_emissions_are_the_integral_of_power_times_intensity(runs, mode):
    result, ledger, _ = runs[mode]
    summary = result["summary"]
    joules = {"running": 0.0, "held": 0.0}
    grams = 0.0
    for begin, end, spent, state in intervals(ledger):
        power = WATTS * (HOLD_POWER if state == "held" else 1.0)
        assert spent == pytest.approx(power * (end - begin).total_seconds(), abs=0.01)
        joules[state] += spent
        if end > begin:
            grams += spent / 3.6e6 * true_mean(begin, end)
    assert summary["energy/kwh"] == pytest.approx(sum(joules.values()) / 3.6e6, rel=1e-6)
    assert joules["running"] >= WATTS * STEPS * 600.0
    assert summary["carbon/unpriced_kwh"] == 0.0
    assert summary["carbon/gco2e"] == pytest.approx(grams, rel=1e-3)


def test_run_without_pauses_emits_the_analytic_value(runs):
    result, ledger, _ = runs["reference"]
    end = time_of(ledger[-1])
    expected = WATTS * (end - START).total_seconds() / 3.6e6 * true_mean(START, end)
    assert result["summary"]["carbon/gco2e"] == pytest.approx(expected, rel=1e-3)
    assert result["summary"]["carbon/hours_waited"] == 0.0


@pytest.mark.parametrize("mode", ["day", "hold"])
def test_run_waits_for_clean_hours(runs, mode):
    result, ledger, _ = runs[mode]
    summary = result["summary"]
    assert summary["carbon/hours_waited"] > 8.0
    assert summary["carbon/saving_pct"] > 15.0
    assert (summary["carbon/exits"] > 0) == (mode == "day")
    first = result["summary"]["carbon/counterfactual_gco2e"]
    work_end = START + timedelta(seconds=STEPS * 600)
    least = WATTS * STEPS * 600 / 3.6e6 * true_mean(START, work_end)
    assert first == pytest.approx(least, rel=0.02)  # and the energy of periodic checkpoints
    assert time_of(ledger[-1]) <= START + timedelta(hours=30)
    assert last_state_of(ledger)["event"] == "finished"
    assert sum(record["event"] == "finished" for record in ledger) == 1
    assert not any(record["event"] == "failed" for record in ledger)


def test_ledger_contains_the_source_of_each_intensity(runs):
    _, ledger, _ = runs["day"]
    assert [record["seq"] for record in ledger] == list(range(1, len(ledger) + 1))
    priced = [record["intensity"] for record in ledger if record.get("intensity")]
    assert {item["kind"] for item in priced} == {"average/lifecycle"}
    assert {item["source"] for item in priced} <= {"electricity-maps", "energy-charts"}
    assert {item["quality"] for item in priced} <= {"measured", "forecast"}
    assert "forecast" in {item["quality"] for item in priced}, "no forecast was used during an outage"
    text = json.dumps(ledger)
    assert TOKEN not in text
    for record in ledger:
        now = record.get("intensity") and record["intensity"]["now"]
        assert not now or now == pytest.approx(truth(time_of(record)), rel=1e-6)


def test_energy_of_hours_without_intensity_is_unpriced(runs):
    result, ledger, _ = runs["blind"]
    summary = result["summary"]
    unknown = summary["carbon/unpriced_kwh"]
    assert 0.0 < unknown < summary["energy/kwh"]
    grams = sum(
        (after[2] / 3.6e6) * true_mean(after[0], after[1])
        for after, record in zip(intervals(ledger), [r for r in ledger if "joules" in r], strict=True)
        if record["intensity"] is not None and after[1] > after[0]
    )
    assert summary["carbon/gco2e"] == pytest.approx(grams, rel=1e-3)
