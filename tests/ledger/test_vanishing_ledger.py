"""A ledger whose file is deleted, or whose directory is renamed or deleted, while it is written."""

import errno
import json
import os
import shutil

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.utilities.clock import SimulatedClock, SystemClock
from tests.helpers.ledgers import make_event, read_records


@pytest.fixture
def ledger(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    ledger = Ledger(folder, SystemClock(), 1, node="a")
    ledger.append(make_event("started"))
    yield ledger
    ledger.close()


def names(folder):
    return [record["event"] for record in read_records(folder)]


def test_deleted_ledger_continues_in_a_new_file(ledger, caplog):
    ledger.path.unlink()
    for _ in range(3):
        ledger.append(make_event("sample"))
    assert names(ledger.path.parent) == ["history_missing", "sample", "sample", "sample"]
    assert len([line for line in caplog.messages if "was deleted" in line]) == 1


def test_ledger_of_a_renamed_directory_is_written_to_its_new_place(ledger, tmp_path, caplog):
    moved = tmp_path / "moved"
    ledger.path.parent.rename(moved)
    ledger.append(make_event("sample"))
    (tmp_path / "run").mkdir()  # of another run
    ledger.append(make_event("sample"))
    assert names(moved) == ["started", "sample", "sample"]
    assert names(tmp_path / "run") == []
    assert len([line for line in caplog.messages if "was moved with its directory" in line]) == 1


def test_deleted_directory_ends_the_ledger_with_one_warning(ledger, caplog):
    shutil.rmtree(ledger.path.parent)
    for _ in range(5):
        ledger.append(make_event("sample"))
    ledger.sync()
    assert not ledger.path.parent.exists()
    (line,) = [line for line in caplog.messages if "cannot be written" in line]
    assert "the run directory was deleted" in line


def test_waiting_lines_are_bounded_and_the_lost_ones_are_recorded(ledger, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("lightning_green.ledger.ledger._MAX_WAITING_BYTES", 2000)
    with monkeypatch.context() as disk:
        disk.setattr("lightning_green.ledger.ledger.os.write", full)
        for step in range(100):
            ledger.append(make_event("sample", global_step=step))
        assert sum(map(len, ledger._waiting)) <= 2000
    ledger.append(make_event("paused"))
    assert len([line for line in caplog.messages if "Free disk space" in line]) == 1
    assert "is written again" in caplog.text
    events = names(ledger.path.parent)
    assert events[0] == "started"
    assert events[-2:] == ["paused", "history_missing"]
    kept = [record["global_step"] for record in read_records(ledger.path.parent) if record["event"] == "sample"]
    assert kept == list(range(100 - len(kept), 100))
    assert read_records(ledger.path.parent)[-1]["reason"] == f"{100 - len(kept)} events are lost: the disk was full"


def test_number_that_is_not_finite_is_written_as_null(ledger):
    ledger.append(make_event("decision", reason="r"))
    ledger.append(make_event("sample", extra_number=float("nan")))
    assert json.loads(ledger.path.read_text().splitlines()[-1])["extra_number"] is None


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["fifo", "link", "directory"])
def test_ledger_that_is_not_a_file_is_refused(tmp_path, kind):
    path, victim = tmp_path / "ledger.a.jsonl", tmp_path / "victim"
    victim.write_text("precious")
    {"fifo": os.mkfifo, "link": lambda path: path.symlink_to(victim), "directory": os.mkdir}[kind](path)
    with pytest.raises(OSError, match=r"ledger\.a\.jsonl"):
        Ledger(tmp_path, SystemClock(), 1, node="a")
    assert victim.read_text() == "precious"


def test_record_that_cannot_be_saved_is_saved_with_a_later_heartbeat(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    directory = RunDirectory(tmp_path)
    with monkeypatch.context() as disk:
        disk.setattr("lightning_green.ledger.run_directory.write_json", full)
        with pytest.raises(OSError, match="No space left"):  # there is no earlier record
            directory.save()
    directory.lock("run")
    directory.save()
    with monkeypatch.context() as disk:
        disk.setattr("lightning_green.ledger.run_directory.write_json", full)
        for value in range(3):
            directory.record["deadline"] = value
            directory.save()
            directory.beat()
    assert len([line for line in caplog.messages if "could not be written (No space left on device)" in line]) == 1
    directory.beat()
    assert RunDirectory(tmp_path).record["deadline"] == 2
    directory.unlock()


def test_run_of_a_renamed_directory_writes_nothing_into_the_new_one(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.lock("run")
    directory.save()
    (tmp_path / "run").rename(tmp_path / "moved")
    other = RunDirectory(tmp_path / "run")
    other.lock("run")
    other.save()
    directory.record["deadline"] = 1
    directory.save()
    directory.beat()
    directory.unlock()
    assert "deadline" not in RunDirectory(tmp_path / "run").record
    assert other.is_alive("run")
    other.unlock()


def test_simulated_clock_whose_position_cannot_be_saved_warns_once(tmp_path, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    clock = SimulatedClock("2024-05-01T00:00:00Z")
    clock.bind(tmp_path)
    monkeypatch.setattr("lightning_green.utilities.clock.os.pwrite", full)
    for _ in range(3):
        clock.advance("batch")
    assert clock.now().minute == 3
    assert len([line for line in caplog.messages if "simulated time cannot be saved" in line]) == 1
