"""The supervisor with real processes that end in every possible way."""

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lightning_green.grid import TraceSignal
from lightning_green.grid.recorded import spec_for_record
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.supervisor import time_limit
from lightning_green.supervisor.command import Command
from lightning_green.supervisor.run_directory import open_run_directory
from lightning_green.supervisor.supervisor import Supervisor
from lightning_green.utilities.clock import SimulatedClock, SystemClock
from tests.helpers.ledgers import make_event, read_records
from tests.helpers.processes import Process, green, run_to_the_end
from tests.helpers.traces import START, write_trace
from tests.supervisor.test_time_limit import Batch

FAKE = Path(__file__).parents[1] / "helpers" / "fake_training.py"
CLOCK = SimulatedClock(START, seconds_per_batch=600, seconds_per_restart=300).spec()  # waits and back-offs are jumps


def fake(*words):
    """Return the command of a fake training."""
    return Command((sys.executable, str(FAKE), *words), os.getcwd(), CLOCK)


@pytest.fixture
def supervise(tmp_path):
    """Return a function that supervises a fake training and returns the exit code and the messages."""

    def run(*words, **options):
        messages = []
        directory = open_run_directory(tmp_path / "run", fresh=False, print_line=messages.append)
        try:
            command = fake(*words)
            code = Supervisor(command, directory, print_line=messages.append, **options).run()
        finally:
            directory.unlock()
        return code, "\n".join(messages)

    return run


def events(run_dir):
    return [record["event"] for record in read_records(run_dir) if record["event"] != "sample"]


def starts(run_dir):
    return len((run_dir / "starts").read_text().splitlines())


@pytest.fixture(autouse=True)
def packages_are_found(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(FAKE.parents[2]))


def test_command_is_restarted_until_it_has_finished(supervise, tmp_path):
    code, output = supervise("pause", "pause", "finish")
    assert code == 0
    assert events(tmp_path / "run") == ["started", "paused", "started", "paused", "started", "finished", "ended"]
    records = read_records(tmp_path / "run")
    assert records[2]["time_utc"] >= records[1]["until"]
    assert output.count("Exited until") == 2
    assert "dirty now" in output


def test_script_that_fails_after_training_repeats_only_the_rest(supervise, tmp_path):
    code, output = supervise("late")
    assert code == 7
    assert "finished; the script then ended with exit code 7" in output
    assert "Rerun the same command to run only the code after the training." in output
    assert starts(tmp_path / "run") == 4  # the process may have been killed between two fits

    code, output = supervise("late", "late", "late", "late", "finish")
    assert code == 0
    assert "All trainings have finished. Only the code after them runs" in output
    code, output = supervise("finish")
    assert "The finished run was moved to" in output


def test_killed_training_is_restarted_while_it_makes_progress(supervise, tmp_path):
    code, output = supervise("steps:2", "steps:2", "steps:2", "steps:2", "steps:2", "finish", max_restarts=1)
    assert code == 0
    assert starts(tmp_path / "run") == 6
    assert "signal SIGKILL" in output


def test_supervisor_gives_up_after_failures_without_a_new_step(supervise, tmp_path):
    code, output = supervise("kill", max_restarts=2)
    assert code == 1
    assert starts(tmp_path / "run") == 3
    assert "Gave up after 3 consecutive failures without a new step" in output
    assert "Starting again in 1 s" in output
    assert "Starting again in 2 s" in output


def test_zero_restarts_gives_up_after_first_failure(supervise, tmp_path):
    assert supervise("kill", max_restarts=0)[0] == 1
    assert starts(tmp_path / "run") == 1


@pytest.mark.parametrize(("word", "message"), [("fail", "loss is nan"), ("die", "no such data set")])
def test_same_error_twice_is_not_restarted(supervise, tmp_path, word, message):
    code, output = supervise(word, max_restarts=9)
    assert code == 1
    assert starts(tmp_path / "run") == 2
    assert f"The same error occurred twice without a new step: RuntimeError: {message}" in output


def test_transient_errors_are_survived(supervise, tmp_path):
    assert supervise("die", "fail", "kill", "finish")[0] == 0
    assert starts(tmp_path / "run") == 4


def test_import_error_is_not_restarted(supervise, tmp_path):
    code, output = supervise("import", max_restarts=9)
    assert code == 1
    assert starts(tmp_path / "run") == 1
    assert output.splitlines()[-1] == (
        "The command cannot start: ModuleNotFoundError: No module named 'a_module_that_is_missing'. Fix the error and "
        "rerun the same command."
    )


def test_missing_script_is_not_restarted(tmp_path):
    messages = []
    directory = open_run_directory(tmp_path / "run", fresh=False, print_line=messages.append)
    command = Command((sys.executable, "missing.py"), os.getcwd(), CLOCK)
    assert Supervisor(command, directory, print_line=messages.append).run() == 1
    directory.unlock()
    (message,) = messages
    assert message.startswith("The command cannot start: can't open file '")
    assert message.endswith("[Errno 2] No such file or directory. Fix the error and rerun the same command.")


def test_training_continued_manually_during_the_wait_is_not_attributed_to_the_child(tmp_path):
    directory, messages = open_run_directory(tmp_path / "run", fresh=False), []

    def print_line(line):
        messages.append(line)
        if line.startswith("Exited until"):
            ledger = Ledger(directory.path, SystemClock(), 2)
            ledger.append(make_event("started", global_step=1))
            ledger.append(make_event("finished", global_step=9))
            ledger.close()

    code = Supervisor(fake("pause", "die"), directory, max_restarts=0, print_line=print_line).run()
    directory.unlock()
    assert code == 1
    assert "Gave up after 1 failure without a new step: the process died before training started" in messages[-1]


def test_script_without_a_recorded_training_is_reported(supervise):
    code, output = supervise("nothing")
    assert code == 0
    assert "without a recorded training; `fast_dev_run`, `validate`, `test` and `predict` are not recorded" in output
    assert "add EmissionsTracker() or CarbonScheduler() to the callbacks" in output


def test_missing_command_is_reported(tmp_path):
    messages = []
    directory = open_run_directory(tmp_path / "run", fresh=False, print_line=messages.append)
    command = Command(("a-command-that-is-missing",), str(tmp_path))
    assert Supervisor(command, directory, print_line=messages.append).run() == 127
    directory.unlock()
    assert "`a-command-that-is-missing` cannot be started: No such file or directory." in messages[0]
    assert len(messages) == 1


def test_error_output_is_shown_and_stored(supervise, tmp_path, capfdbinary):
    supervise("die")
    assert b"no such data set" in capfdbinary.readouterr().err
    assert b"no such data set" in (tmp_path / "run" / "stderr.log").read_bytes()


def test_wandb_id_is_passed_to_the_child(supervise, tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.record["loggers"] = {"0.0.CSVLogger": 3, "0.1.WandbLogger": "abc"}
    directory.save()
    supervise("finish")
    assert (tmp_path / "run" / "starts").read_text() == "abc\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_is_forwarded_and_the_same_command_continues(tmp_path, number):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--clock", CLOCK, "--", sys.executable, FAKE, "term", "finish")
    with Process(line, tmp_path) as process:
        process.until((run / "waiting").exists)
        assert process.kill(number) == 128 + number
        assert events(run) == ["started", "interrupted"]
        assert f"Stopped at step 2 by {number.name}." in process.printed
        given = f"--clock {CLOCK} -- {sys.executable} {FAKE} term finish"
        assert f"To continue:            lightning-green run --run-dir {run} {given}" in process.printed
        assert f"To start from scratch:  lightning-green run --run-dir {run} --fresh {given}" in process.printed
    code, output = run_to_the_end(line, tmp_path)
    assert code == 0, output
    assert events(run) == ["started", "interrupted", "started", "finished", "ended"]


def test_signal_ends_the_wait_of_an_exited_run(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--", sys.executable, FAKE, "pause", "finish")  # on the system's clock
    with Process(line, tmp_path) as process:
        process.until(lambda: "Exited until" in process.printed)
        assert process.kill(signal.SIGTERM) == 143
        assert "To continue" in process.printed
    assert starts(run) == 1
    with Process(line, tmp_path) as process:  # the same command waits again and does not start the training early
        process.until(lambda: "Exited until" in process.printed)
        assert process.kill(signal.SIGKILL) == -9
    assert starts(run) == 1


def test_training_survives_its_supervisor_and_is_not_started_twice(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--clock", CLOCK, "--", sys.executable, FAKE, "slow")
    with Process(line, tmp_path) as first:
        first.until((run / "waiting").exists)
        assert first.kill(signal.SIGKILL) == -9
        with Process(line, tmp_path) as second:
            second.until(lambda: "still running without its supervisor" in second.printed)
            (run / "go").touch()
            assert second.wait() == 0, second.printed
            assert "All trainings have finished. Only the code after them runs" in second.printed
    assert (
        events(run) == ["started", "finished", "ended"] * 2
    )  # restored, because the exit code of its script is unknown


def test_run_that_finished_without_supervisor_is_kept_until_its_exit_code_is_known(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--clock", CLOCK, "--", sys.executable, FAKE, "slow")
    with Process(line, tmp_path) as first:
        first.until((run / "waiting").exists)
        assert first.kill(signal.SIGKILL) == -9
        (run / "go").touch()
        limit = time.monotonic() + 60
        while events(run)[-1] != "ended" or RunDirectory(run).is_alive("run"):
            assert time.monotonic() < limit
            time.sleep(0.02)
    code, _ = run_to_the_end(line, tmp_path)
    assert code == 0
    assert events(run) == ["started", "finished", "ended", "started", "finished", "ended"]  # in one directory
    messages = []
    open_run_directory(
        run, fresh=False, print_line=messages.append
    ).unlock()  # its exit code is known now, so the next start is a new run
    assert "The finished run was moved to" in messages[0]


def test_training_that_has_not_opened_its_run_directory_is_waited_for(tmp_path):
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
                second.until(lambda: "still running without its supervisor" in second.printed)
                (tmp_path / "go").touch()
                assert second.wait() == 0
        finally:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
    assert events(run) == ["started", "finished", "ended"] * 2  # one after the other


def test_second_supervisor_of_a_run_is_refused(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--", sys.executable, FAKE, "term")
    with Process(line, tmp_path) as first:
        first.until((run / "waiting").exists)
        code, output = run_to_the_end(line, tmp_path)
        assert code == 3
        assert f"The run in {run} is already running in" in output
        assert "--run-dir DIR" in output
        assert first.kill(signal.SIGTERM) == 143
    assert starts(run) == 1


def test_finished_run_is_renamed(supervise, tmp_path):
    supervise("finish")
    code, output = supervise("finish")
    assert code == 0
    assert f"The finished run was moved to {tmp_path / 'run.1'}" in output
    assert events(tmp_path / "run") == events(tmp_path / "run.1") == ["started", "finished", "ended"]


def test_fresh_renames_the_old_run_directory(tmp_path):
    supervise_words = (sys.executable, FAKE, "pause", "finish")
    run = tmp_path / "run"
    with Process(green("run", "--run-dir", run, "--", *supervise_words), tmp_path) as process:
        process.until(lambda: "Exited until" in process.printed)
    code, output = run_to_the_end(
        green("run", "--run-dir", run, "--fresh", "--", sys.executable, FAKE, "finish"), tmp_path
    )
    assert code == 0
    assert "The earlier run was moved to" in output
    assert events(tmp_path / "run.1") == ["started", "paused"]
    assert events(run) == ["started", "finished", "ended"]


def paused_with_a_plan(run_dir, grid, hours=20):
    """Write a run that has exited until 10:00, for a job of two hours."""
    run = RunDirectory(run_dir)
    run.record["clock"] = CLOCK
    run.save()
    clock = SimulatedClock(START)
    clock.bind(run_dir)
    ledger = Ledger(run_dir, clock, 1)
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


def test_exited_run_is_planned_again(supervise, tmp_path):
    clean_from_six = [600] * 6 + [50] * 4 + [600] * 20
    trace = TraceSignal(write_trace(tmp_path / "trace.csv", clean_from_six))
    paused_with_a_plan(tmp_path / "run", spec_for_record(trace))
    code, output = supervise("finish")
    assert code == 0
    assert "New plan: exited until 2024-05-02 06:00 UTC" in output
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
def test_missing_grid_does_not_stop_the_run(supervise, tmp_path, spec):
    paused_with_a_plan(tmp_path / "run", spec)
    code, output = supervise("finish")
    assert code == 0
    records = read_records(tmp_path / "run")[:-1]
    assert records[-2]["time_utc"] >= START.replace(hour=10).isoformat()
    assert "A new plan is not possible" in output
    assert any(record["event"] == "warning" for record in records)


def test_used_budget_ends_with_its_own_exit_code_and_continues_later(supervise, tmp_path):
    code, messages = supervise("budget", "finish")
    assert code == 69  # 75 would let some batch systems start the job again at once
    assert "Paused at step 3: A budget is used. Raise it." in messages
    assert supervise("budget", "finish")[0] == 0
    assert starts(tmp_path / "run") == 2


@pytest.mark.slow
def test_training_that_does_not_exit_at_the_time_limit_is_not_requeued_forever(tmp_path, monkeypatch):
    monkeypatch.setattr(time_limit, "SHORTEST_LEAD_SECONDS", 1.0)
    command = Command(("/bin/sh", "-c", "trap '' TERM USR1; sleep 3.5; exit 1"), os.getcwd(), None)
    codes, releases, messages = [], [], []
    for _ in range(4):  # jobs
        launcher = Batch(3.0)
        directory = open_run_directory(tmp_path / "run", fresh=False, print_line=messages.append)
        try:
            codes.append(Supervisor(command, directory, 1, print_line=messages.append, launcher=launcher).run())
        finally:
            directory.unlock()
        releases.append(launcher.releases)
    assert codes == [75, 75, 1, 1]
    assert releases == [1, 1, 0, 0]
    assert "Gave up after 3 jobs that met their time limit without saving a new step" in "\n".join(messages)
