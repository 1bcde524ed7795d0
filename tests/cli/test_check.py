import json
import os
import signal
import subprocess
import sys
import time

import pytest
from typer.testing import CliRunner

from lightning_green.check import CheckResult, Difference, Verdict
from lightning_green.cli import check
from lightning_green.cli.main import app
from lightning_green.run.pause_rule import PauseAt, PauseRule, read_check

DIFFERENCE = Difference("batch 2 of epoch 1", "stopped", "loss", attributes=(("module.kl", "0.1", "0.0"),))


@pytest.fixture
def invoke(tmp_path, monkeypatch):
    """Call the command with the result of a check."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").touch()

    def call(result, *options):
        monkeypatch.setattr(check.Check, "run", lambda self: result)
        return CliRunner().invoke(app, ["check", *options, "--", "python", "train.py"])

    return call


def test_missing_command_is_wrong_usage():
    result = CliRunner().invoke(app, ["check"])
    assert result.exit_code == 2
    assert "lightning-green check -- python train.py" in result.stderr


@pytest.mark.parametrize(
    ("verdict", "code", "rule"),
    [
        (Verdict.EXACT, 0, PauseRule()),
        (Verdict.EPOCHS, 4, PauseRule(PauseAt.EPOCH, "why")),
        (Verdict.INEXACT, 1, PauseRule(PauseAt.NEVER, "why")),
        (Verdict.NOT_SAVED, 1, None),
        (Verdict.UNDETERMINED, 1, None),
    ],
)
def test_exit_code_and_record_for_run(invoke, verdict, code, rule):
    invoke(CheckResult(Verdict.EPOCHS, "an earlier check"))
    result = invoke(CheckResult(verdict, "" if verdict is Verdict.EXACT else "why"))
    assert result.exit_code == code
    assert read_check(["python", "train.py"]) == (rule, rule is not None)


def test_output_for_people(invoke):
    result = CheckResult(
        Verdict.INEXACT,
        "it differs",
        "change it",
        DIFFERENCE,
        ignored=("time",),
        loggers=("MyLogger",),
        linked=tuple(f"data{number}" for number in range(7)),
        fits=1,
        epochs=3,
        batches=6,
        stops=("stopped before epoch 1",),
        missed=("killed in epoch 2, last saved at its start",),
    )
    lines = invoke(result).stdout.splitlines()
    assert lines[0].startswith("Not exact.")
    assert lines[1:4] == ["  Reason   it differs.", "  Changed  module.kl: 0.1, then 0.0", "  Remedy   change it."]
    assert "  Checked  1 fit, the first of 3 epochs of 6 batches each; 0 starts" in lines
    assert "  Stop     stopped before epoch 1" in lines
    assert "  Missed   killed in epoch 2, last saved at its start" in lines
    assert "  Linked   not copied, so changes remain: data0, data1, data2, data3, data4 and 2 more" in lines
    assert any("MyLogger" in line for line in lines)
    assert any("time" in line for line in lines)


def test_exactness_of_the_first_of_several_trainings_is_not_recorded(invoke):
    result = invoke(CheckResult(Verdict.EXACT, trainings=3))
    assert result.exit_code == 0
    assert "the command starts 3 trainings; only the first was checked, so nothing is recorded" in result.stdout
    assert read_check(["python", "train.py"]) == (None, False)
    result = invoke(CheckResult(Verdict.INEXACT, "why", trainings=3))
    assert "only the first was checked\n" in result.stdout
    assert read_check(["python", "train.py"]) == (PauseRule(PauseAt.NEVER, "why"), True)


def test_json_output(invoke):
    found = json.loads(invoke(CheckResult(Verdict.INEXACT, "why", difference=DIFFERENCE), "--json").stdout)
    assert found["verdict"] == "inexact"
    assert found["difference"]["attributes"] == [["module.kl", "0.1", "0.0"]]


@pytest.mark.sampled(every=3)
@pytest.mark.slow
@pytest.mark.parametrize("end", ["training", "SIGINT", "SIGTERM"])
def test_check_that_began_with_an_ignored_interrupt_ends_its_processes(tmp_path, end):
    """A shell script starts `python train.py &` with an ignored SIGINT, which the check of the training inherits."""
    pid, temporary = tmp_path / "pid", tmp_path / "temporary"
    temporary.mkdir()
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    words = [sys.executable, "-m", "lightning_green", "check", "--background", "--", sys.executable, "-c", script]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(
            words, cwd=tmp_path, env={**os.environ, "TMPDIR": str(temporary)}, stdin=subprocess.PIPE
        )
    finally:
        signal.signal(signal.SIGINT, before)
    while not (pid.exists() and pid.read_text()):
        assert process.poll() is None
        time.sleep(0.05)
    if end == "training":
        process.stdin.close()
    else:
        process.send_signal(getattr(signal, end))
    assert process.wait(60) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)
    assert list(temporary.iterdir()) == []
