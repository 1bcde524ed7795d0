"""A ledger that is read with merged samples has the same totals."""

import random
from dataclasses import replace
from datetime import datetime, timezone

import pytest

from lightning_green.energy.meter import Energy
from lightning_green.ledger import ledger as ledger_module
from lightning_green.ledger import read_history
from lightning_green.ledger.baseline import run_now_baselines
from lightning_green.ledger.events import Decision, Paused, PhaseChanged, Sample, Started, StateChanged
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.measurement import Intensity, Measurement
from lightning_green.utilities.clock import SimulatedClock


def write(folder, seed, count=600):
    """Write a ledger with changes of everything that an interval depends on."""
    folder.mkdir(exist_ok=True)
    choose, clock = random.Random(seed), SimulatedClock(datetime(2024, 5, 1, tzinfo=timezone.utc))
    ledger, joules, state, phase, power, attempt = Ledger(folder, clock, 1), 0.0, "running", "training", 1.0, 1
    intensity = Intensity(300.0, "average/lifecycle", "test", "DE")
    quality, hour = "measured", clock.time() // 3600
    for number in range(count):
        clock.sleep(choose.choice([15.0, 15.0, 20.0]))
        joules += choose.uniform(2e4, 3e4)
        if clock.time() // 3600 != hour:
            hour, value = clock.time() // 3600, choose.uniform(200, 400)
            intensity = choose.choice([None, *[Intensity(value, "average/lifecycle", "test", "DE")] * 4])
        event = Started(startup_s=3.0) if number == 0 else Sample()
        kind = choose.random()
        if kind < 0.03:
            state = choose.choice(["running", "held"])
            event = StateChanged()
        elif kind < 0.06:
            phase = choose.choice(["training", "validation"])
            event = PhaseChanged()
        elif kind < 0.11:
            event = Decision(action="run")
        elif kind < 0.12:
            power = choose.choice([1.0, 0.7])
        elif kind < 0.13:
            clock.sleep(5000.0)
        elif kind < 0.14:
            quality = choose.choice(["measured", "modelled"])
        elif kind < 0.15 and number:
            event = Paused(until=clock.now())
        measured = Measurement({"gpu": Energy(joules, quality)}, intensity, 1.2, power, power)
        ledger.append(replace(event, phase=phase, state=state, measured=measured, global_step=number))
        if isinstance(event, Paused):
            ledger.close()
            clock.sleep(3600.0)
            attempt, joules = attempt + 1, 0.0
            ledger = Ledger(folder, clock, attempt)
            started = Started(startup_s=2.0)
            ledger.append(replace(started, phase="training", state="running", measured=replace(measured, joules={})))
    ledger.close()


@pytest.mark.parametrize("seed", range(8))
def test_totals_do_not_change(tmp_path, monkeypatch, seed):
    monkeypatch.setattr(ledger_module, "_LONG_BYTES", 0)
    write(tmp_path / "run", seed)
    every, merged = read_history(tmp_path / "run"), read_history(tmp_path / "run", merge_samples=True)
    assert merged.count < 0.6 * every.count
    for name in ("joules", "joules_by_state", "joules_by_phase", "gco2e", "seconds_by_state"):
        assert getattr(merged.totals, name) == pytest.approx(getattr(every.totals, name)), name
    for name in ("quality", "exits", "attempts", "last_time", "unpriced_joules", "exit_joules"):
        assert getattr(merged.totals, name) == pytest.approx(getattr(every.totals, name)), name
    for kind, base in run_now_baselines(every.totals).items():
        assert run_now_baselines(merged.totals)[kind].grams == pytest.approx(base.grams, rel=0.01)
    assert merged.events[-1] == every.events[-1]


def test_short_ledger_keeps_every_sample(tmp_path):
    write(tmp_path / "run", 0)
    assert read_history(tmp_path / "run", merge_samples=True).count == read_history(tmp_path / "run").count


@pytest.mark.parametrize(
    "line", ['{"event": "sample"}', '{"event": "sample", "joules": 3, "intensity": [], "mono_s": {}}']
)
def test_damaged_samples_are_not_merged(tmp_path, monkeypatch, line):
    monkeypatch.setattr(ledger_module, "_LONG_BYTES", 0)
    (tmp_path / "ledger.a.jsonl").write_text(f"{line}\n{line}\n")
    assert read_history(tmp_path, merge_samples=True).count == read_history(tmp_path).count
