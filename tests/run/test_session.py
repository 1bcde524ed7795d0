"""One fit: what it adds up over restarts, and its events."""

import math
import threading
import time
from datetime import datetime, timedelta

import pytest

from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.meter import Energy
from lightning_green.energy.rapl import RaplMeter
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.ledger.events import Paused
from lightning_green.ledger.nodes import Node
from lightning_green.run import session as session_module
from lightning_green.run.coordinator import nonzero_rank_session
from lightning_green.run.run import Run
from lightning_green.run.session import Session
from lightning_green.utilities.clock import SystemClock
from lightning_green.utilities.processes import own_age
from tests.helpers.ledgers import read_records, total_of
from tests.helpers.powercap import counters, set_counter
from tests.helpers.sessions import START, advance, clock, options

MINUTE = timedelta(minutes=1)


# -- what it adds up --------------------------------------------------------------------------------------------------


def day(at):
    """Return an intensity that rises and falls over a day, and holds for a minute at a time."""
    hours = (at - START).total_seconds() / 3600
    return 300.0 + 200.0 * math.cos(2 * math.pi * hours / 24)


def integral(start_hours, end_hours):
    """Return the integral of ``day`` in gCO2e/kW, in closed form."""
    turn = 24 / (2 * math.pi)
    sine = [math.sin(2 * math.pi * hours / 24) for hours in (start_hours, end_hours)]
    return 300.0 * (end_hours - start_hours) + 200.0 * turn * (sine[1] - sine[0])


def test_emissions_follow_the_integral(opened):
    run, _ = opened(grid=FunctionSignal(day, resolution=MINUTE), pue=1.5)
    advance(run, 6 * 7)
    summary = run.summary()
    assert summary["energy/kwh"] == pytest.approx(0.3 * 7)
    assert summary["carbon/gco2e"] == pytest.approx(1.5 * 0.3 * integral(0, 7), rel=2e-3)  # of one-minute steps
    assert summary["carbon/counterfactual_gco2e"] == pytest.approx(summary["carbon/gco2e"])
    assert summary["carbon/saving_pct"] == pytest.approx(0.0, abs=1e-6)


def test_totals_continue_over_a_pause_a_kill_and_a_hold(opened, tmp_path, monkeypatch):
    grid = FunctionSignal(day, resolution=MINUTE)
    run, _ = opened(grid=grid)
    advance(run, 12)  # 0 to 2
    run.record(Paused(until=START + timedelta(hours=8)))
    run.summary()  # as `leave` does
    run.clock.sleep(6 * 3600)
    run.end()
    run.run.end(cleanly=True)

    run, _ = opened(grid=grid)  # 8:00, and five minutes for coming back
    assert (run.attempt, run.continuing) == (2, True)
    advance(run, 6)  # to 9:05
    run.meter.set_load(0.25)
    run.recorder.enter(state="held", phase="held")
    run.clock.sleep(2 * 3600)  # to 11:05
    run.meter.set_load(1.0)
    run.recorder.enter(state="running", phase="training")
    advance(run, 3)
    run.sample()  # at 11:35; then the process is killed
    run.run.end(cleanly=False)

    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    run, _ = opened(grid=grid)
    advance(run, 6)  # 11:40 to 12:40
    summary = run.summary()
    back = 5 / 60
    spans = [(0, 2, 1.0), (8, 9 + back, 1.0), (9 + back, 11 + back, 0.25), (11 + back, 12 + 2 * back + 0.5, 1.0)]
    assert summary["energy/kwh"] == pytest.approx(sum(0.3 * power * (end - start) for start, end, power in spans))
    expected = sum(0.3 * power * integral(start, end) for start, end, power in spans)
    assert summary["carbon/gco2e"] == pytest.approx(expected, rel=2e-3)
    assert summary["carbon/exits"] == 1
    assert summary["carbon/hours_waited"] == pytest.approx(6 + 2)
    assert summary["carbon/elapsed_hours"] == pytest.approx(12 + 2 * back + 0.5)
    work = 2 + 1 + 0.5 + back + 1  # without the return from the exit, and with the one from the kill
    assert summary["carbon/counterfactual_gco2e"] == pytest.approx(0.3 * integral(0, work), rel=2e-3)
    books = total_of(read_records(tmp_path / "run"))
    assert books.grams() == pytest.approx(summary["carbon/gco2e"])
    assert books.kwh == pytest.approx(summary["energy/kwh"])


def test_first_start_is_kept_over_restarts(opened):
    run, _ = opened()
    first = run.record_on_disk["first_start"]
    assert datetime.fromisoformat(first) == START
    run.record(Paused(until=START))
    run.clock.sleep(3600)
    run.end()
    run.run.end(cleanly=True)
    assert opened()[0].record_on_disk["first_start"] == first


def test_energy_without_intensity_is_unpriced(opened):
    def known_for_an_hour(at):
        return 100.0 if at < START + timedelta(hours=1) else math.nan

    run, _ = opened(grid=FunctionSignal(known_for_an_hour, resolution=MINUTE * 15))
    advance(run, 12)
    summary = run.summary()
    assert summary["energy/kwh"] == pytest.approx(0.6)
    assert summary["carbon/gco2e"] == pytest.approx(30.0)
    assert summary["carbon/unpriced_kwh"] == pytest.approx(0.3)
    assert summary["carbon/known_share"] == pytest.approx(0.5)
    assert summary["carbon/counterfactual_gco2e"] == summary["carbon/gco2e_of_known"] == pytest.approx(30.0)
    assert summary["carbon/saving_pct"] == 0.0


def test_second_fit_with_the_same_meter_object_and_other_gpus_is_measured(tmp_path):
    folder = counters(tmp_path / "powercap", packages=1, dram=False)
    given, run = options(meter=RaplMeter("60s", folder, "node")), Run(None, clock())
    for fit, gpu in enumerate(["0", "1"], start=1):
        session = Session(run, given)
        session.bind_gpus([gpu])
        session.start()
        set_counter(folder, "intel-rapl:0", fit * 3_600_000)
        session.sample()
        assert session.summary()["energy/kwh"] == pytest.approx(1e-6)
        session.end()
    run.end(cleanly=True)


def test_energy_that_cannot_be_read_is_unknown_and_so_are_emissions(opened):
    run, _ = opened(meter=None, grid=100.0)
    advance(run, 6)
    summary = run.summary()
    names = ("energy/kwh", "carbon/gco2e", "carbon/counterfactual_gco2e", "carbon/saving_pct")
    assert [summary[name] for name in names] == [None] * 4
    assert "the energy is unknown" in summary["carbon/unknown_because"]


def test_another_kind_of_signal_has_a_name_of_its_own_and_is_announced(opened, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    run, _ = opened(grid=FunctionSignal(lambda at: 100.0))
    advance(run, 6)
    run.run.end(cleanly=False)
    run, _ = opened(grid=FunctionSignal(lambda at: 400.0, kind="average/direct"))
    advance(run, 6)
    summary = run.summary()
    assert summary["carbon/gco2e"] == pytest.approx(30.0)
    assert summary["carbon/gco2e_average_direct"] == pytest.approx(120.0 + 0.3 * 400.0 * 300 / 3600)  # and the restart
    assert run.metrics()["carbon/gco2e_average_direct"] == summary["carbon/gco2e_average_direct"]
    assert summary["carbon/saving_pct"] == summary["carbon/saving_pct_average_direct"] == pytest.approx(0.0)
    warnings = [record["reason"] for record in read_records(tmp_path / "run") if record["event"] == "warning"]
    assert warnings == [line for line in caplog.messages if "average/direct from this start on" in line]
    assert len(warnings) == 1


def test_restart_counts_from_the_start_of_its_process(opened, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    run, _ = opened(clock=SystemClock())
    run.run.end(cleanly=False)
    assert "unmetered" not in run.totals.joules  # the first start: a script may do anything before it trains
    run, _ = opened(clock=SystemClock())
    age = own_age()
    assert age > 1.0  # of this process of pytest
    assert run.totals.joules["unmetered"] / 300.0 == pytest.approx(age, rel=0.1)
    assert run.totals.joules_by_phase["restart"] >= run.totals.joules["unmetered"]
    assert run.summary()["energy/quality"]["unmetered"] == "modelled"


# -- what it writes ---------------------------------------------------------------------------------------------------


def test_changes_of_state_and_phase_are_different_events(opened, tmp_path):
    run, _ = opened()
    run.recorder.enter(phase="validation")
    run.recorder.enter(state="held", phase="held", reason="dirty now", until=START)
    records = read_records(tmp_path / "run")
    assert [record["event"] for record in records] == ["started", "phase", "state"]
    assert (records[-1]["reason"], records[-1]["until"]) == ("dirty now", START.isoformat())


def test_heartbeat_samples_until_the_session_ends(opened, tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "SAMPLE_SECONDS", 0.02)
    run, _ = opened(clock=SystemClock())
    limit = time.monotonic() + 20
    while len(read_records(tmp_path / "run")) < 4 and time.monotonic() < limit:
        time.sleep(0.01)
    run.end()
    run.run.end(cleanly=True)
    records = read_records(tmp_path / "run")
    assert [record["event"] for record in records[:4]] == ["started", "sample", "sample", "sample"]
    assert records[-1]["event"] == "ended"
    joules = [record["joules"]["other"]["value"] for record in records[:-1]]
    assert joules == sorted(joules)
    assert joules[0] < joules[-1]
    assert not [thread for thread in threading.enumerate() if thread.name == "lightning-green-heartbeat"]


def test_heartbeat_writes_energy_that_the_meter_has_not_sampled_yet(opened, tmp_path, monkeypatch):
    class Counting(ConstantPowerMeter):
        samples = 0

        def read(self):
            return {"other": Energy(float(self.samples), "measured")}

        def sample(self):
            self.samples += 1

    monkeypatch.setattr(session_module, "SAMPLE_SECONDS", 0.02)
    run, _ = opened(meter=Counting(1.0), clock=SystemClock())
    limit = time.monotonic() + 20
    while len(read_records(tmp_path / "run")) < 4 and time.monotonic() < limit:
        time.sleep(0.01)
    run.end()
    joules = [record["joules"]["other"]["value"] for record in read_records(tmp_path / "run")[:4]]
    assert joules == sorted(set(joules))


@pytest.mark.parametrize(("process", "beats"), [(0, True), (1, False)])
def test_one_process_per_node_has_a_heartbeat(process, beats):
    run = nonzero_rank_session(Node(1, 2, process), options(), SystemClock())
    run.start()
    run.announce()
    found = [thread for thread in threading.enumerate() if thread.name == "lightning-green-heartbeat"]
    run.end()
    run.run.end(cleanly=True)
    assert bool(found) is beats


def test_problems_of_sources_are_logged_and_recorded_once(opened, tmp_path, caplog):
    class Failing(ConstantPowerMeter):
        problem = "The sensor of the CPU cannot be read any more."

    class Reporting(FunctionSignal):
        lines = ("The grid does not answer.",)

        def pop_messages(self):
            lines, self.lines = self.lines, ()
            return list(lines)

    run, _ = opened(meter=Failing(300.0), grid=Reporting(lambda at: 100.0))
    run.sample()
    run.sample()
    printed = {record["event"]: record["reason"] for record in read_records(tmp_path / "run") if record["reason"]}
    assert printed == {"grid": Reporting.lines[0], "meter": Failing.problem}
    assert caplog.text.count("The grid does not answer.") == 1
    assert caplog.text.count("cannot be read any more") == 1
    assert [record["event"] for record in read_records(tmp_path / "run")].count("meter") == 1
