"""Signals to a supervised command: wrappers, programs in the background, stuck processes, terminals and pipes."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.ledgers import read_records
from tests.helpers.processes import Process, environment, green, run_to_the_end

FAKE = Path(__file__).parents[1] / "helpers" / "fake_training.py"
HELPER = "import signal, sys, time; {}; open(sys.argv[1], 'w').close(); time.sleep(600)"


def events(run):
    return [record["event"] for record in read_records(run) if record["event"] != "sample"]


def shell(run, script, *options):
    """Return the line that supervises a script of bash, in which ``$FAKE`` is the fake training."""
    fake = f"{sys.executable} {FAKE}"
    return green("run", "--run-dir", run, *options, "--", "bash", "-c", script.replace("$FAKE", fake))


def helper(path, action="pass"):
    """Return the command line of a program that creates a file and then runs on."""
    return f'{sys.executable} -c "{HELPER.format(action)}" {path}'


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_signal_reaches_a_training_below_a_wrapper_that_does_not_pass_it_on(tmp_path, number):
    run = tmp_path / "run"
    with Process(shell(run, "$FAKE term; echo ended"), tmp_path) as process:
        process.until((run / "waiting").exists)
        assert process.kill(number) == 128 + number
        assert events(run) == ["started", "interrupted"]
        assert not process.left()


def test_stuck_training_is_killed_after_the_stop_timeout(tmp_path):
    run = tmp_path / "run"
    script = f"trap '' TERM; {helper(tmp_path / 'ready', 'signal.signal(15, signal.SIG_IGN)')}; exit 0"
    with Process(shell(run, script, "--stop-timeout", "1s"), tmp_path) as process:
        process.until((tmp_path / "ready").exists)
        assert process.kill(signal.SIGTERM) == 143
        assert "The command is still running after 1 s. Killing." in process.printed
        assert "--stop-timeout 1s" in process.printed
        assert not process.left()


def test_program_in_the_background_does_not_delay_the_next_start(tmp_path):
    run = tmp_path / "run"
    script = f"[ -e {run}/starts ] || {helper(tmp_path / 'ready')} & $FAKE die finish"
    with Process(shell(run, script), tmp_path) as process:
        assert process.wait(60) == 0
        assert "The command has left processes in the background: " in process.printed
        assert process.left("ready")  # not ours to end
        code, output = run_to_the_end(green("run", "--run-dir", run, "--fresh", "--", "true"), tmp_path, seconds=60)
        assert code == 0, output


@pytest.mark.slow
def test_programs_in_the_background_end_with_a_stop(tmp_path):
    run = tmp_path / "run"
    background = helper(tmp_path / "ready", "signal.signal(15, signal.SIG_IGN)")
    with Process(shell(run, f"{background} & $FAKE term"), tmp_path) as process:
        process.until(lambda: (run / "waiting").exists() and (tmp_path / "ready").exists())
        assert process.kill(signal.SIGTERM) == 143
        assert "Killing processes in the background: " in process.printed
        assert events(run) == ["started", "interrupted"]
        assert not process.left()


@pytest.mark.slow
def test_program_that_an_earlier_start_has_left_ends_with_a_stop(tmp_path):
    run = tmp_path / "run"
    script = f"[ -e {run}/starts ] || {helper(tmp_path / 'ready')} & $FAKE die term"
    with Process(shell(run, script), tmp_path) as process:
        process.until(lambda: (run / "waiting").exists() and (tmp_path / "ready").exists())
        assert process.kill(signal.SIGTERM) == 143
        assert not process.left()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_a_training_without_its_supervisor_is_awaited_reaches_it(tmp_path, number):
    run = tmp_path / "run"
    line = shell(run, "$FAKE term; echo ended")
    with Process(line, tmp_path) as first:
        first.until((run / "waiting").exists)
        first.kill(signal.SIGKILL)
        with Process(line, tmp_path) as second:
            second.until(lambda: "Waiting for its end" in second.printed)
            assert second.kill(number) == 128 + number
        assert events(run) == ["started", "interrupted"]
        assert not first.left()


RANK = """
import os, signal, sys, time
from lightning_green.ledger.run_directory import keep_ranks_file_open
keep_ranks_file_open()
stopped = []
signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
helper = os.fork()
if helper == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
open("ready", "w").close()
while not stopped:
    time.sleep(0.02)
time.sleep(13)
open("saved", "w").write("with its helper" if os.waitpid(helper, os.WNOHANG) == (0, 0) else "without its helper")
os.kill(helper, signal.SIGKILL)
"""


@pytest.mark.slow
def test_rank_that_saves_longer_than_its_wrapper_lives_keeps_its_helpers(tmp_path):
    (tmp_path / "rank.py").write_text(RANK)
    script = f"{sys.executable} rank.py; exit 0"
    with Process(green("run", "--run-dir", tmp_path / "run", "--", "bash", "-c", script), tmp_path) as process:
        process.until((tmp_path / "ready").exists)
        assert process.kill(signal.SIGTERM) == 143
        assert (tmp_path / "saved").read_text() == "with its helper"
        assert not process.left()


def test_signal_to_the_whole_process_group_of_the_supervisor_saves(tmp_path):
    run = tmp_path / "run"
    with Process(shell(run, "$FAKE term"), tmp_path) as process:
        process.until((run / "waiting").exists)
        os.killpg(process.process.pid, signal.SIGTERM)
        os.killpg(process.process.pid, signal.SIGTERM)
        assert process.wait(60) == 143
        assert events(run) == ["started", "interrupted"]


def test_signal_while_the_command_starts_ends_it(tmp_path):
    for delay in (0.0, 0.1, 0.2):
        run = tmp_path / f"run{delay}"
        with Process(shell(run, "$FAKE term"), tmp_path) as process:
            process.until(run.exists)
            time.sleep(delay)
            assert process.kill(signal.SIGTERM) in (143, -signal.SIGTERM)  # the latter before its handlers
            assert not process.left()


def test_run_under_nohup_survives_a_hangup(tmp_path):
    run = tmp_path / "run"
    with Process(["nohup", *green("run", "--run-dir", run, "--", sys.executable, FAKE, "slow")], tmp_path) as process:
        process.until((run / "waiting").exists)
        process.process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        (run / "go").touch()
        assert process.wait(60) == 0


def in_terminal(line, folder):
    """Start a line of bash in a terminal of its own; return its process id and the terminal."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe("bash", ["bash", "-c", line], environment())
    return pid, terminal


def wait_for(happened, seconds=60):
    limit = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < limit
        time.sleep(0.02)


@pytest.mark.parametrize("ending", ["ctrl-c", "close"])
def test_terminal_ends_with_the_state_saved(tmp_path, ending):
    run = tmp_path / "run"
    line = " ".join(map(str, green("run", "--run-dir", run, "--", sys.executable, FAKE, "print")))
    pid, terminal = in_terminal(f"{line} 2>&1 | tee log.txt" if ending == "ctrl-c" else f"exec {line}", tmp_path)
    try:
        wait_for((run / "waiting").exists)
        if ending == "ctrl-c":
            os.write(terminal, b"\x03")  # `tee` ends at once, while the training prints
        else:
            os.close(terminal)
        wait_for(lambda: events(run) == ["started", "interrupted"])
        status = os.waitpid(pid, 0)[1]
        assert ending == "ctrl-c" or os.waitstatus_to_exitcode(status) == 128 + signal.SIGHUP
    finally:
        subprocess.run(["pkill", "-9", "-f", str(run)], check=False)


def test_pipe_that_is_closed_is_no_failure(tmp_path):
    run = tmp_path / "run"
    line = " ".join(map(str, green("run", "--run-dir", run, "--", sys.executable, FAKE, "lines")))
    done = subprocess.run(
        ["bash", "-c", f"{line} 2>&1 | head -2; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done
    assert len(done.stdout.splitlines()) == 2
    assert events(run) == ["started", "finished", "ended"]


@pytest.mark.parametrize(("command", "code"), [("missing-command", 127), ("./missing", 127), ("./readable", 126)])
def test_command_that_cannot_be_executed_leaves_nothing_behind(tmp_path, command, code):
    (tmp_path / "readable").write_text("")
    ended, output = run_to_the_end(green("run", "--", command), tmp_path)
    assert ended == code
    assert f"The command `{command}` " in output
    assert {path.name for path in tmp_path.iterdir()} == {"readable", "output.0"}


def test_directory_that_is_removed_or_renamed_is_reported(tmp_path):
    run = tmp_path / "run"
    line = green("run", "--run-dir", run, "--", sys.executable, FAKE, "term")
    with Process(line, tmp_path) as process:
        process.until((run / "waiting").exists)
        run.rename(tmp_path / "moved")
        time.sleep(1.5)
        for pid in process.left("term"):
            if pid != process.process.pid:
                os.kill(pid, signal.SIGTERM)
        assert process.wait(60) == 1
        assert f"The run directory {run} was removed or renamed during the training" in process.printed
    assert events(tmp_path / "moved") == ["started", "interrupted"]


@pytest.mark.slow
def test_directory_that_is_gone_for_longer_than_a_heartbeat_is_no_failure(tmp_path):
    run, away = tmp_path / "run", tmp_path / "away"
    with Process(green("run", "--run-dir", run, "--", sys.executable, FAKE, "term"), tmp_path) as process:
        process.until((run / "waiting").exists)
        run.rename(away)
        time.sleep(12)
        assert process.process.poll() is None, process.printed
        away.rename(run)
        assert process.kill(signal.SIGTERM) == 143
    assert events(run) == ["started", "interrupted"]


def test_directory_that_is_renamed_between_two_starts_is_reported(tmp_path):
    run = tmp_path / "run"
    with Process(green("run", "--run-dir", run, "--", sys.executable, FAKE, "kill"), tmp_path) as process:
        process.until(lambda: "Starting again in 1 s" in process.printed)
        run.rename(tmp_path / "away")
        assert process.wait(60) == 1
        assert f"The run directory {run} was removed or renamed" in process.printed.splitlines()[-1]
    assert not run.exists()


FAILING = """
import sys
from pathlib import Path
from lightning_green.cli.main import app
from lightning_green.ledger.run_directory import RunDirectory
def fail(self, force=False):
    if (self.path / "waiting").exists():
        raise RuntimeError("a fault")
RunDirectory.beat = fail
app()
"""


def test_command_ends_with_a_supervisor_that_fails(tmp_path):
    run = tmp_path / "run"
    line = [sys.executable, "-c", FAILING, "run", "--run-dir", run, "--", sys.executable, FAKE, "term"]
    with Process(line, tmp_path) as process:
        assert process.wait(60) == 1
        assert not process.left()
        assert events(run) == ["started", "interrupted"]
