"""The exit codes of ``lightning-green run``, as docs/waiting.md lists them, by real command lines."""

import signal
import sys
from pathlib import Path

import pytest

from tests.helpers.processes import Process, green, run_to_the_end
from tests.helpers.traces import START

FAKE = Path(__file__).parents[1] / "helpers" / "fake_training.py"
CLOCK = f"simulated:start={START.isoformat()},batch=600,restart=300"  # waits and back-offs are jumps
ONCE = f"[ -e second ] && exit 0; touch second; {sys.executable} {FAKE} pause"


def supervised(tmp_path, *words, options=()):
    """Return the line that supervises the fake training, or another command after ``--``."""
    command = words[1:] if words[:1] == ("--",) else (sys.executable, FAKE, *words)
    return green("run", "--run-dir", tmp_path / "run", "--clock", CLOCK, *options, "--", *command)


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    ("words", "options", "code"),
    [
        (["finish"], [], 0),
        (["pause", "die", "kill", "finish"], [], 0),
        (["--", "true"], [], 0),
        (["kill"], ["--max-restarts", "0"], 1),
        (["kill"], ["--max-restarts", "1"], 1),
        (["fail"], [], 1),
        (["import"], [], 1),
        (["--", sys.executable, "missing.py"], [], 1),
        (["--", "false"], ["--max-restarts", "0"], 1),
        (["--", "bash", "-c", ONCE], [], 1),
        (["finish"], ["--max-restarts", "-1"], 2),
        (["finish"], ["--stop-timeout", "soon"], 2),
        (["--", "/"], [], 126),
        (["--", "a-command-that-is-missing"], [], 127),
        (["late"], ["--max-restarts", "0"], 7),
        (["late", "late", "finish"], [], 0),
        (["crash"], ["--max-restarts", "0"], 128 + signal.SIGSEGV),
    ],
)
def test_code_of_a_command_that_ends_by_itself(tmp_path, words, options, code):
    ended, output = run_to_the_end(supervised(tmp_path, *words, options=options), tmp_path)
    assert ended == code, output


@pytest.mark.sampled
@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM])
@pytest.mark.parametrize(("word", "sign"), [("term", "waiting"), ("pause", "starts")])
def test_code_of_a_signal_is_its_number_plus_128(tmp_path, number, word, sign):
    line = green("run", "--run-dir", tmp_path / "run", "--", sys.executable, FAKE, word)
    with Process(line, tmp_path) as process:
        process.until((tmp_path / "run" / sign).exists)
        if word == "pause":
            process.until(lambda: "Exited until" in process.printed)
        assert process.kill(number) == 128 + number, process.printed


@pytest.mark.slow
def test_codes_of_directories_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    assert run_to_the_end(green("run", "--run-dir", tmp_path / "file", "--", "true"), tmp_path)[0] == 2
    assert run_to_the_end(green("run"), tmp_path)[0] == 2
    with Process(supervised(tmp_path, "term"), tmp_path) as process:
        process.until((tmp_path / "run" / "waiting").exists)
        assert run_to_the_end(supervised(tmp_path, "term"), tmp_path)[0] == 3
        assert process.kill(signal.SIGTERM) == 143
    code, output = run_to_the_end(supervised(tmp_path, "finish"), tmp_path)
    assert (code, "was started with" in output) == (2, True)
