"""What the supervisor makes of every way in which a training can end. Each is a real process."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunFolder
from lightning_green.supervisor.supervisor import Supervisor, open_folder
from lightning_green.utilities.clock import SimulatedClock, SystemClock
from tests.helpers.ledgers import make_event, read_records
from tests.helpers.processes import Process, green, run_to_the_end
from tests.helpers.traces import START, write_trace

FAKE = Path(__file__).parents[1] / "helpers" / "fake_training.py"
CLOCK = SimulatedClock(START, seconds_per_batch=600, seconds_per_restart=300).spec()  # waits and back-offs are jumps


@pytest.fixture
def supervise(tmp_path):
    """Return a function that supervises a fake training and returns the exit code and what was said."""

    def run(*words, **options):
        said = []
        folder = open_folder(tmp_path / "run", fresh=False, say=said.append)
        try:
            command = [sys.executable, str(FAKE), *words]
            code = Supervisor(command, folder, clock=CLOCK, say=said.append, **options).run()
        finally:
            folder.unlock()
        return code, "\n".join(said)

    return run


def events(folder):
    return [record["event"] for record in read_records(folder) if record["event"] != "sample"]


def starts(folder):
    return len((folder / "starts").read_text().splitlines())


@pytest.fixture(autouse=True)
def packages_are_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FAKE.parents[2]))


def test_it_starts_again_until_it_is_finished(supervise, tmp_path):
    code, said = supervise("pause", "pause", "finish")
    assert code == 0
    assert events(tmp_path / "run") == ["started", "paused", "started", "paused", "started", "finished", "ended"]
    records = read_records(tmp_path / "run")
    assert records[2]["time_utc"] >= records[1]["until"]
    assert said.count("Out until") == 2
    assert "dirty now" in said


def test_a_script_that_fails_after_the_training(supervise, tmp_path):
    code, said = supervise("late")
    assert code == 7
    assert "finished; the script then ended with exit code 7" in said
    assert "The same line runs what follows the training again, without training." in said
    assert starts(tmp_path / "run") == 4  # it may have been killed between two fits

    code, said = supervise("late", "late", "late", "late", "finish")
    assert code == 0
    assert "The trainings have finished, so only what follows them runs" in said
    code, said = supervise("finish")
    assert "The finished run is kept in" in said


def test_a_kill_is_retried_as_long_as_there_are_new_steps(supervise, tmp_path):
    code, said = supervise("steps:2", "steps:2", "steps:2", "steps:2", "steps:2", "finish", max_restarts=1)
    assert code == 0
    assert starts(tmp_path / "run") == 6
    assert "signal SIGKILL" in said


def test_it_gives_up_after_failures_without_a_new_step(supervise, tmp_path):
    code, said = supervise("kill", max_restarts=2)
    assert code == 1
    assert starts(tmp_path / "run") == 3
    assert "Given up after 3 failures in a row" in said
    assert "Starting again in 1 s" in said
    assert "Starting again in 2 s" in said


def test_without_a_restart_it_gives_up_at_once(supervise, tmp_path):
    assert supervise("kill", max_restarts=0)[0] == 1
    assert starts(tmp_path / "run") == 1


@pytest.mark.parametrize(("word", "message"), [("fail", "loss is nan"), ("die", "no such data set")])
def test_the_same_error_twice_ends_it(supervise, tmp_path, word, message):
    code, said = supervise(word, max_restarts=9)
    assert code == 1
    assert starts(tmp_path / "run") == 2
    assert f"The same error came twice without a new step: RuntimeError: {message}" in said


def test_an_error_that_passes_is_survived(supervise, tmp_path):
    assert supervise("die", "fail", "kill", "finish")[0] == 0
    assert starts(tmp_path / "run") == 4


def test_a_child_that_dies_on_its_first_import(supervise, tmp_path):
    code, said = supervise("import", max_restarts=9)
    assert code == 1
    assert starts(tmp_path / "run") == 1
    assert said.splitlines()[-1] == (
        "The command cannot start: ModuleNotFoundError: No module named 'a_module_that_is_missing'. Fix the error and "
        "rerun the same command."
    )


def test_what_somebody_did_by_hand_while_it_was_out_is_not_taken_for_the_child_s(tmp_path):
    folder, said = open_folder(tmp_path / "run", fresh=False), []

    def say(line):
        said.append(line)
        if line.startswith("Out until"):
            ledger = Ledger(folder.path, SystemClock(), 2)
            ledger.append(make_event("started", global_step=1))
            ledger.append(make_event("finished", global_step=9))
            ledger.close()

    command = [sys.executable, str(FAKE), "pause", "die"]
    code = Supervisor(command, folder, max_restarts=0, clock=CLOCK, say=say).run()
    folder.unlock()
    assert code == 1
    assert "Given up after 1 failures in a row without a new step: died before the training began" in said[-1]


def test_a_script_without_our_callbacks(supervise):
    code, said = supervise("nothing")
    assert code == 0
    assert "Add EmissionsTracker() or CarbonScheduler()" in said


def test_a_command_that_is_not_there(tmp_path):
    said = []
    folder = open_folder(tmp_path / "run", fresh=False, say=said.append)
    assert Supervisor(["a-command-that-is-missing"], folder, say=said.append).run() == 1
    folder.unlock()
    assert "`a-command-that-is-missing` cannot be started: No such file or directory." in said[0]
    assert len(said) == 1


def test_the_child_s_errors_are_shown_and_kept(supervise, tmp_path, capfdbinary):
    supervise("die")
    assert b"no such data set" in capfdbinary.readouterr().err
    assert b"no such data set" in (tmp_path / "run" / "stderr.log").read_bytes()


def test_the_early_wandb_id_is_handed_to_the_child(supervise, tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.record["loggers"] = {"0.0.CSVLogger": 3, "0.1.WandbLogger": "abc"}
    folder.save()
    supervise("finish")
    assert (tmp_path / "run" / "starts").read_text() == "abc\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_passed_on_and_the_same_line_continues(tmp_path, number):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--clock", CLOCK, "--", sys.executable, FAKE, "term", "finish")
    with Process(line, tmp_path) as process:
        process.until((run / "waiting").exists)
        assert process.kill(number) == 128 + number
        assert events(run) == ["started", "interrupted"]
        assert f"Stopped at step 2 by {number.name}." in process.told
        given = f"--clock {CLOCK} -- {sys.executable} {FAKE} term finish"
        assert f"To continue:    lightning-green run --run-dir {run} {given}" in process.told
        assert f"To start anew:  lightning-green run --run-dir {run} --fresh {given}" in process.told
    code, told = run_to_the_end(line, tmp_path)
    assert code == 0, told
    assert events(run) == ["started", "interrupted", "started", "finished", "ended"]


def test_a_signal_while_it_is_out_ends_the_wait(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--", sys.executable, FAKE, "pause", "finish")  # on the system's clock
    with Process(line, tmp_path) as process:
        process.until(lambda: "Out until" in process.told)
        assert process.kill(signal.SIGTERM) == 143
        assert "To continue" in process.told
    assert starts(run) == 1
    with Process(line, tmp_path) as process:  # the same line waits on, and does not start a training before its time
        process.until(lambda: "Out until" in process.told)
        assert process.kill(signal.SIGKILL) == -9
    assert starts(run) == 1


def test_the_training_outlives_its_supervisor_and_is_not_started_twice(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--clock", CLOCK, "--", sys.executable, FAKE, "slow")
    with Process(line, tmp_path) as first:
        first.until((run / "waiting").exists)
        assert first.kill(signal.SIGKILL) == -9
        with Process(line, tmp_path) as second:
            second.until(lambda: "still running without its supervisor" in second.told)
            (run / "go").touch()
            assert second.wait() == 0, second.told
            assert "The trainings have finished, so only what follows them runs" in second.told
    assert events(run) == ["started", "finished", "ended"] * 2  # restored: nobody has seen how its script ended


def test_a_run_that_finished_after_its_supervisor_was_killed_is_kept_until_its_script_has_ended(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--clock", CLOCK, "--", sys.executable, FAKE, "slow")
    with Process(line, tmp_path) as first:
        first.until((run / "waiting").exists)
        assert first.kill(signal.SIGKILL) == -9
        (run / "go").touch()
        limit = time.monotonic() + 60
        while events(run)[-1] != "ended" or RunFolder(run).is_alive("run"):
            assert time.monotonic() < limit
            time.sleep(0.02)
    code, _ = run_to_the_end(line, tmp_path)
    assert code == 0
    assert events(run) == ["started", "finished", "ended", "started", "finished", "ended"]  # in one folder
    said = []
    open_folder(run, fresh=False, say=said.append).unlock()  # now that its end was seen, the next is a new run
    assert "The finished run is kept in" in said[0]


def test_a_training_that_has_not_opened_the_folder_yet_is_seen_too(tmp_path):
    run, script = tmp_path / "run", tmp_path / "slow_import.py"
    script.write_text(
        "import os, runpy, sys, time\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        f"while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.02)\n"
        f"sys.argv = ['x', 'finish']; runpy.run_path({str(FAKE)!r}, run_name='__main__')\n"
    )
    line = green("run", "--run-dir", run, "--clock", CLOCK, "--", sys.executable, script)
    with Process(line, tmp_path) as first:
        first.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        child = int((tmp_path / "pid").read_text())
        try:
            first.kill(signal.SIGKILL)
            with Process(line, tmp_path) as second:
                second.until(lambda: "still running without its supervisor" in second.told)
                (tmp_path / "go").touch()
                assert second.wait() == 0
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert events(run) == ["started", "finished", "ended"] * 2  # one after the other


def test_two_supervisors_do_not_share_a_run(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--", sys.executable, FAKE, "term")
    with Process(line, tmp_path) as first:
        first.until((run / "waiting").exists)
        code, told = run_to_the_end(line, tmp_path)
        assert code == 3
        assert f"The run in {run} is alive" in told
        assert "--run-dir DIR" in told
        assert first.kill(signal.SIGTERM) == 143
    assert starts(run) == 1


def test_a_finished_run_is_put_aside(supervise, tmp_path):
    supervise("finish")
    code, said = supervise("finish")
    assert code == 0
    assert f"The finished run is kept in {tmp_path / 'run.1'}" in said
    assert events(tmp_path / "run") == events(tmp_path / "run.1") == ["started", "finished", "ended"]


def test_fresh_keeps_the_old_folder(tmp_path):
    supervise_words = (sys.executable, FAKE, "pause", "finish")
    run = tmp_path / "run"
    with Process(green("run", "--run-dir", run, "--", *supervise_words), tmp_path) as process:
        process.until(lambda: "Out until" in process.told)
    code, told = run_to_the_end(
        green("run", "--run-dir", run, "--fresh", "--", sys.executable, FAKE, "finish"), tmp_path
    )
    assert code == 0
    assert "The earlier run is kept in" in told
    assert events(tmp_path / "run.1") == ["started", "paused"]
    assert events(run) == ["started", "finished", "ended"]


def paused_with_a_plan(folder, grid, hours=20):
    """Write a run that is out until 10:00, for a job of two hours."""
    run = RunFolder(folder)
    run.record["clock"] = CLOCK
    run.save()
    clock = SimulatedClock(START)
    clock.bind(folder)
    ledger = Ledger(folder, clock, 1)
    common = {"state": "running", "phase": "training", "joules": {}, "global_step": 3}
    ledger.append(make_event("started", reason="", **common))
    job = {
        "work_hours": 2.0,
        "deadline": START.replace(hour=hours).isoformat(),
        "hold_power": 0.3,
        "resume_cost": 0.1,
        "pauses": ["exit"],
        "min_saving": 0.0,
    }
    until = START.replace(hour=10).isoformat()
    ledger.append(make_event("paused", until=until, reason="dirty now", job=job, grid=grid, **common))
    ledger.close()


def test_it_plans_again_while_it_is_out(supervise, tmp_path):
    clean_from_six = [600] * 6 + [50] * 4 + [600] * 20
    spec = {"class_path": "lightning_green.grid.TraceSignal", "init_args": {}}
    spec["init_args"]["path"] = write_trace(tmp_path / "trace.csv", clean_from_six)
    paused_with_a_plan(tmp_path / "run", spec)
    code, said = supervise("finish")
    assert code == 0
    assert "Planned again: out until 2024-05-02 06:00 UTC" in said
    records = read_records(tmp_path / "run")
    assert [record["event"] for record in records][-4:] == ["decision", "started", "finished", "ended"]
    records.pop()
    assert records[-2]["time_utc"].startswith("2024-05-02T06:0")
    assert records[-3]["action"] == "exit"


@pytest.mark.parametrize(
    "spec",
    [
        {
            "class_path": "lightning_green.grid.TraceSignal",
            "init_args": {"path": "/a/trace/that/is/gone.csv"},
        },
        {"class_path": "a_package_that.is.Gone", "init_args": {}},
        {"class_path": "lightning_green.grid.TraceSignal", "init_args": {"of_tomorrow": 1}},
    ],
)
def test_a_grid_that_is_gone_ends_no_run(supervise, tmp_path, spec):
    paused_with_a_plan(tmp_path / "run", spec)
    code, said = supervise("finish")
    assert code == 0
    records = read_records(tmp_path / "run")[:-1]
    assert records[-2]["time_utc"] >= START.replace(hour=10).isoformat()
    assert "Planning again is not possible" in said
    assert any(record["event"] == "warning" for record in records)
