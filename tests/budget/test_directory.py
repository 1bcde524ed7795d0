"""The directory of a budget: limits, records, faults."""

import json
import multiprocessing
import os
import shutil
from dataclasses import replace

import pytest

from lightning_green.budget import BudgetDirectory, BudgetError, Limits, Usage, read_budget
from lightning_green.budget.record import RunRecord
from lightning_green.budget.usage import read_run_usage
from lightning_green.energy.meter import Energy
from lightning_green.ledger.events import Finished, Sample, Started
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.measurement import Intensity, Measurement
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.planning.prices import PriceSeries
from lightning_green.utilities.clock import SimulatedClock
from lightning_green.utilities.locks import ProcessLock

HOUR_JOULES = 300.0 * 3600
PRICES = PriceSeries(constant=0.5)


def run(path, hours, ends=False, pue=1.5):
    """Write the run of a machine of 300 W at 100 gCO2e/kWh with an event each hour; return its record."""
    directory = RunDirectory(path)
    directory.save()
    clock = SimulatedClock("2024-05-02T00:00:00+00:00")
    ledger = Ledger(path, clock, 1)
    for hour in range(hours + 1):
        measured = Measurement(
            {"other": Energy(hour * HOUR_JOULES, "measured")}, Intensity(100.0, "average/lifecycle", "test"), pue=pue
        )
        kind = Started if hour == 0 else Finished if ends and hour == hours else Sample
        ledger.append(kind(measured=measured, state="running", phase="training"))
        clock.sleep(3600.0)
    ledger.close()
    return RunRecord(directory.record["run_id"], str(path))


@pytest.fixture
def shared(tmp_path):
    directory = BudgetDirectory(tmp_path / "shared", updates=True)
    directory.join(Limits(kwh=2.0, cost=3.0))
    return directory


def files(shared):
    return sorted(path.name for path in (shared.path / "runs").iterdir())


def test_killed_run_is_brought_up_to_its_ledger_and_counted_once(tmp_path, shared):
    record = run(tmp_path / "a", 4)
    shared.write(record)
    for _ in range(3):
        status = shared.read(prices=PRICES)
        assert status.runs == 1
        assert status.usage.kwh == pytest.approx(1.2, rel=1e-9)
        assert status.usage.gco2e == {"average/lifecycle": pytest.approx(180.0)}
        assert status.usage.cost == pytest.approx(0.9)
    written = RunRecord.from_file(shared.path / "runs" / f"{record.run_id}.json")
    assert (written.usage.kwh, written.state_name) == (pytest.approx(1.2), "killed")
    shutil.rmtree(tmp_path / "a")
    assert shared.read().usage.kwh == pytest.approx(1.2)
    assert written.state_name == "unknown"


def test_run_that_is_alive_is_not_read(tmp_path, shared):
    record = run(tmp_path / "a", 4)
    shared.write(record)
    lock = ProcessLock(tmp_path / "a" / "run.lock")
    assert lock.acquire()
    assert shared.read().usage.kwh == 0.0
    assert next(shared.records()).state_name == "running"
    lock.release()
    assert shared.read().usage.kwh == pytest.approx(1.2)


def test_another_run_in_the_same_directory_is_not_read(tmp_path, shared):
    record = run(tmp_path / "a", 4)
    shared.write(replace(record, usage=Usage(kwh=0.7)))
    shutil.rmtree(tmp_path / "a")
    run(tmp_path / "a", 9)
    assert shared.read().usage.kwh == pytest.approx(0.7)


def test_a_reader_that_only_looks_writes_nothing(tmp_path, shared):
    record = run(tmp_path / "a", 4)
    shared.write(record)
    before = (shared.path / "runs" / f"{record.run_id}.json").read_bytes()
    assert read_budget(shared.path).usage.kwh == pytest.approx(1.2)
    assert (shared.path / "runs" / f"{record.run_id}.json").read_bytes() == before


def test_cost_without_a_price_is_that_of_the_record_and_the_rest_is_unknown(tmp_path, shared):
    record = run(tmp_path / "a", 4)
    known = read_run_usage(tmp_path / "a", PRICES).read()
    half = replace(known, kwh=0.6, cost=0.45, priced_kwh=0.9)
    shared.write(replace(record, usage=half, ledger_bytes=1))
    status = read_budget(shared.path)
    assert (status.usage.cost, status.usage.priced_kwh) == (0.45, 0.9)
    assert status.usage.unknown_price_kwh == pytest.approx(0.9)
    assert list(status.notes()) == ["The price of 0.9000 kWh is unknown; its cost is not included."]
    assert shared.read(prices=PRICES).usage.cost == pytest.approx(0.9)


@pytest.mark.parametrize("file", [PriceSeries(constant=0.1), PriceSeries([4e9], [4e9 + 3600], [0.1])])
def test_known_cost_of_a_killed_run_does_not_depend_on_the_prices_of_its_reader(tmp_path, shared, file):
    record = run(tmp_path / "a", 4)
    half = Usage(kwh=0.6, cost=0.45, priced_kwh=0.9)
    shared.write(replace(record, usage=half, ledger_bytes=1))
    added = 0.0 if file.constant is None else 0.09
    usage = shared.read(prices=file).usage
    assert usage.cost == pytest.approx(0.45 + added)
    assert usage.priced_kwh + usage.unknown_price_kwh == pytest.approx(1.8)


def test_reader_without_a_price_leaves_the_rest_to_the_run(tmp_path, shared):
    record = run(tmp_path / "a", 4)
    shared.write(replace(record, usage=Usage(kwh=0.6, cost=0.45, priced_kwh=0.9), ledger_bytes=1))
    assert shared.read().usage.unknown_price_kwh == pytest.approx(0.9)
    assert shared.record_of(record.run_id).usage.unknown_price_kwh == 0.0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"version": 2}',
        b"\xff\xfe",
        json.dumps({"version": 1, "run_id": "damaged", "run_dir": "", "usage": {"kwh": "1"}}).encode(),
        json.dumps({"version": 1, "run_id": "other", "run_dir": "", "usage": {}}).encode(),
        json.dumps({"version": 1, "run_id": "damaged", "usage": Usage(kwh=-5.0).to_json(), "run_dir": "",
                    "state": "", "ledger_bytes": 0}).encode(),
        json.dumps({"version": 1, "run_id": "damaged", "usage": Usage(kwh=1e300).to_json(), "run_dir": "",
                    "state": "", "ledger_bytes": 0}).encode(),
        json.dumps({"version": 1, "run_id": "damaged", "usage": Usage().to_json(), "run_dir": 3, "state": "",
                    "ledger_bytes": 0}).encode(),
        b'{"version": 1, "run_id": "damaged", "usage": ' + b"[" * 100_000,
    ],
)  # fmt: skip
def test_damaged_record_is_skipped_with_one_warning(tmp_path, shared, caplog, content):
    shared.write(run(tmp_path / "a", 4))
    (shared.path / "runs" / "damaged.json").write_bytes(content)
    for _ in range(2):
        assert shared.read().usage.kwh == pytest.approx(1.2)
    assert caplog.text.count("damaged.json of a budget is skipped") == 1


def test_entries_that_are_no_records_are_skipped(tmp_path, shared):
    shared.write(run(tmp_path / "a", 4))
    runs = shared.path / "runs"
    os.mkfifo(runs / "pipe.json")
    (runs / "folder.json").mkdir()
    (runs / "link.json").symlink_to("/dev/zero")
    (runs / "notes.txt").write_text("mine")
    record = replace(RunRecord("relative"), run_dir="../../../etc\0")
    record.write(runs)
    assert shared.read().usage.kwh == pytest.approx(1.2)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"version": 1, "limits": {"kwh": -1}}',
                                     '{"version": 1, "limits": {"watts": 1}}', '{"version": 9}',
                                     '{"version": 1, "limits": [1]}', '{"version": 1, "limits": {"kwh": true}}',
                                     '{"version": 1, "kind": 3}'])  # fmt: skip
def test_damaged_limits_are_an_error_until_they_are_set_again(shared, content):
    (shared.path / "budget.json").write_text(content)
    with pytest.raises(BudgetError, match=r"is damaged: .*Set its limits again: lightning-green budget"):
        shared.read()
    assert shared.set_limits(Limits(kwh=3.0)).limits == Limits(kwh=3.0)
    assert shared.read().limits == Limits(kwh=3.0)


def test_limits_of_the_first_run_apply_and_others_raise(shared):
    assert shared.join(Limits()).limits == Limits(kwh=2.0, cost=3.0)
    assert shared.join(Limits(kwh=2.0, cost=3.0)).limits == Limits(kwh=2.0, cost=3.0)
    with pytest.raises(BudgetError, match="this run was given"):
        shared.join(Limits(kwh=2.0))
    shared.set_limits(Limits(kwh=5.0))
    for same in (Limits(kwh=2.0, cost=3.0), Limits(kwh=5.0, cost=3.0), Limits()):
        assert shared.join(same).limits == Limits(kwh=5.0, cost=3.0)


def test_lock_of_a_process_that_hangs_delays_but_does_not_prevent_a_start(shared, monkeypatch):
    monkeypatch.setattr("lightning_green.budget.directory._LOCK_SECONDS", 0.1)
    lock = ProcessLock(shared.path / "budget.lock")
    assert lock.acquire()
    assert shared.join(Limits()).limits == Limits(kwh=2.0, cost=3.0)
    lock.release()


def _join(path, kwh, found):
    try:
        found.put(BudgetDirectory(path).join(Limits(kwh=kwh)).limits.kwh)
    except BudgetError:
        found.put(None)


def test_processes_that_create_it_at_the_same_time_have_the_same_limits(tmp_path):
    context = multiprocessing.get_context("fork")
    found = context.Queue()
    processes = [context.Process(target=_join, args=(tmp_path / "new", 1.0 + number, found)) for number in range(4)]
    for process in processes:
        process.start()
    results = [found.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    limits = {one for one in results if one is not None}
    assert limits == {read_budget(tmp_path / "new").limits.kwh}
    assert results.count(None) == 3
