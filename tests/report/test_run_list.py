"""Lists of run directories, also of damaged ones."""

import json
import os

import pytest

from lightning_green.report import run_list
from lightning_green.report.run_cache import SummaryCache
from lightning_green.report.run_list import find_runs, list_runs
from tests.helpers.fake_runs import FakeRun, at


def finished(path, hours=1):
    run = FakeRun(path).add("started", 0)
    for step in range(hours):
        run.add("sample", step)
    return run.add("finished", 9)


def set_age(path, seconds):
    for file in path.iterdir():
        os.utime(file, (1e9 - seconds, 1e9 - seconds))


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_newest_run_is_first(tmp_path):
    for name, age in (("a", 30), ("b", 10), ("c", 20)):
        finished(tmp_path / name)
        set_age(tmp_path / name, age)
    assert [run.run_dir for run in list_runs(tmp_path)] == [str(tmp_path / name) for name in "bca"]


def test_directories_below_are_included_and_hidden_ones_and_links_are_not(tmp_path):
    finished(tmp_path / "x" / "y" / "run")
    finished(tmp_path / "x" / "y" / "run" / "runs" / "2")
    finished(tmp_path / ".hidden" / "run")
    finished(tmp_path / "x" / "y" / "run" / "kept" / "no-run")
    finished(tmp_path / "1" / "2" / "3" / "4" / "too-deep")
    (tmp_path / "link").symlink_to(tmp_path / "x")
    found = [str(path.relative_to(tmp_path)) for path in find_runs(tmp_path)]
    assert found == ["x/y/run", "x/y/run/runs/2"]
    assert next(find_runs(tmp_path / "x" / "y" / "run")) == tmp_path / "x" / "y" / "run"


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "not readable as JSON"), ('{"schema": 9}', "another version"), ('{"schema": 1}', "`run_id` is missing")],
)
def test_damaged_run_is_one_line_with_the_reason(tmp_path, content, reason):
    finished(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text(content)
    found = {os.path.basename(run.run_dir): run for run in list_runs(tmp_path)}
    assert found["good"].state == "finished"
    assert found["bad"].state == "unreadable"
    assert reason in found["bad"].problem
    assert "\n" not in found["bad"].problem
    assert files(tmp_path / "bad") == ["run.json"]


def test_directory_without_permission_is_one_line(tmp_path, monkeypatch):
    finished(tmp_path / "run")

    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path / "run.json"))

    monkeypatch.setattr(run_list, "read_run_status", refuse)
    (run,) = list_runs(tmp_path)
    assert (run.state, run.problem) == ("unreadable", "Permission denied: run.json")


def test_list_changes_no_file(tmp_path):
    finished(tmp_path / "run")
    before = files(tmp_path)
    list_runs(tmp_path)
    assert files(tmp_path) == before


def test_ledger_of_an_ended_run_is_read_once(tmp_path, monkeypatch):
    run, cache = finished(tmp_path / "runs" / "one"), tmp_path / "cache.json"
    first = list_runs(tmp_path / "runs", SummaryCache(cache))
    reads, read = [], run_list.read_run_status
    monkeypatch.setattr(run_list, "read_run_status", lambda *given: reads.append(given) or read(*given))
    assert list_runs(tmp_path / "runs", SummaryCache(cache)) == first
    assert reads == []
    run.add("sample", 99)
    assert list_runs(tmp_path / "runs", SummaryCache(cache))[0].steps == 99
    assert len(reads) == 1


def test_running_and_waiting_runs_are_always_read(tmp_path):
    cache = tmp_path / "cache.json"
    FakeRun(tmp_path / "runs" / "waits").add("started", 0).add("paused", 4, until=at(9))
    restarted = finished(tmp_path / "runs" / "ended")
    list_runs(tmp_path / "runs", SummaryCache(cache))
    assert list(json.loads(cache.read_text())["runs"]) == [str(tmp_path / "runs" / "ended")]
    failed = FakeRun(tmp_path / "runs" / "failed").add("started", 0).add("failed", 4)
    assert {run.next for run in list_runs(tmp_path / "runs", SummaryCache(cache)) if run.state == "failed"} == {
        "rerun the command"
    }
    failed.folder.lock("supervisor")  # it restarts the run, which the cached summary does not contain
    assert {run.next for run in list_runs(tmp_path / "runs", SummaryCache(cache)) if run.state == "failed"} == {
        "restarts soon"
    }
    failed.folder.unlock()
    restarted.folder.unlock()


@pytest.mark.parametrize("content", ["", "[]", '{"version": 2, "runs": []}', '{"version": 2, "runs": {"%s": 3}}'])
def test_damaged_cache_is_ignored(tmp_path, content):
    finished(tmp_path / "runs" / "one")
    cache = tmp_path / "cache.json"
    cache.write_text(content.replace("%s", str(tmp_path / "runs" / "one")))
    assert list_runs(tmp_path / "runs", SummaryCache(cache))[0].state == "finished"
    assert json.loads(cache.read_text())["version"] == 2


def test_summary_of_another_version_is_ignored(tmp_path):
    finished(tmp_path / "runs" / "one")
    cache = tmp_path / "cache.json"
    (expected,) = list_runs(tmp_path / "runs", SummaryCache(cache))
    record = json.loads(cache.read_text())
    record["runs"][str(tmp_path / "runs" / "one")]["summary"]["new_field"] = 1
    cache.write_text(json.dumps(record))
    assert list_runs(tmp_path / "runs", SummaryCache(cache)) == [expected]
