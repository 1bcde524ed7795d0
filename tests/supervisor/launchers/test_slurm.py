"""Requeueing of SLURM jobs with a fake ``scontrol``. A real training is requeued in ``tests/resume/test_slurm.py``."""

import os
import re
import signal
import subprocess
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.supervisor.launchers import SLURMLauncher, requeue


@pytest.fixture(autouse=True)
def same_handlers():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def scontrol(tmp_path, monkeypatch):
    """Return the file in which a fake ``scontrol`` records its arguments; it exits with the code in ``code``."""
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho refused >&2\nexit $(cat {tmp_path}/code)\n')
    program.chmod(0o755)
    (tmp_path / "code").write_text("0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path / "calls"


@pytest.mark.parametrize(
    ("variables", "job"),
    [
        ({"SLURM_JOB_ID": "7"}, "7"),
        ({"SLURM_JOB_ID": "9", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}, "7_3"),
        ({}, ""),
    ],
)
def test_job_id_includes_the_array_task(variables, job):
    assert SLURMLauncher(variables).job_id == job


def test_requeue_calls_scontrol_with_the_job(scontrol, caplog):
    requeue({"SLURM_JOB_ID": "7"})
    assert scontrol.read_text() == "requeue 7\n"
    assert caplog.text == ""


def test_failed_requeue_only_warns(scontrol, tmp_path, monkeypatch, caplog):
    (tmp_path / "code").write_text("1")
    requeue({"SLURM_JOB_ID": "7"})
    assert "The SLURM job 7 could not be requeued (refused" in caplog.text
    caplog.clear()
    monkeypatch.setenv("PATH", "/nonexistent")
    requeue({"SLURM_JOB_ID": "7"})
    assert "The SLURM job 7 could not be requeued" in caplog.text


def test_shell_that_a_signal_would_end_is_reported(tmp_path):
    with subprocess.Popen(["/bin/sh", "-c", "sleep 60; true"]) as shell:
        variables, messages = {"SLURM_JOB_ID": "7", "SLURM_TASK_PID": str(shell.pid)}, []
        SLURMLauncher(variables).prepare(messages.append)
        assert "exec lightning-green run" in messages.pop()
        SLURMLauncher({**variables, "SLURM_STEP_ID": "0"}).prepare(messages.append)  # in `srun`
        SLURMLauncher({**variables, "SLURM_TASK_PID": str(os.getpid())}).prepare(messages.append)  # `exec`
        assert messages == []
        shell.kill()


def test_job_that_is_being_canceled_is_not_requeued(scontrol, tmp_path):
    """SLURM would start a canceled job again."""
    shown = "JobId=7 BatchFlag=1 Requeue=1 JobState=CANCELLED"  # codespell:ignore
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\necho "{shown}"\n')
    messages, before = [], signal.getsignal(signal.SIGTERM)
    begin = datetime.now(timezone.utc) + timedelta(hours=1)
    assert SLURMLauncher({"SLURM_JOB_ID": "7"}).release_until(begin, messages.append) is None
    assert scontrol.read_text() == "show job 7\n"
    assert "is CANCELLED and is not requeued" in messages[0]  # codespell:ignore
    assert signal.getsignal(signal.SIGTERM) == before


def test_array_task_names_itself_in_every_call(tmp_path, monkeypatch):
    """``SLURM_JOB_ID`` of the last task is the id of the array."""
    program = tmp_path / "scontrol"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n'
        'case "$1 $2" in "show job") echo "JobId=7 BatchFlag=1 Requeue=1 JobState=RUNNING";; esac\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    messages = []
    launcher = SLURMLauncher({"SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"})
    release = launcher.release_until(datetime.now(timezone.utc) + timedelta(hours=1), messages.append)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    assert release is not None
    assert release.exit_code is None
    calls = (tmp_path / "calls").read_text().splitlines()
    assert calls[0] == "show job 7_3"
    assert calls[-2] == "requeue 7_3"
    assert re.fullmatch(r"update JobId=7_3 StartTime=now\+(3600|3599)", calls[-1])


SHOWN = "JobId=7 BatchFlag=1 Requeue=1 JobState=RUNNING"


@pytest.mark.parametrize(
    ("shown", "code", "may_retry", "message"),
    [
        (SHOWN, 1, True, "cannot be requeued: refused"),  # while the controller restarts
        (SHOWN.replace("BatchFlag=1", "BatchFlag=0"), 0, False, "is interactive"),
        (
            SHOWN.replace("Requeue=1", "Requeue=0 AllocTRES=cpu=8,gres/gpu=4"),
            0,
            False,
            "would lack its GPUs (gres/gpu=4)",
        ),
    ],
)
def test_refusal_is_repeated_unless_its_reason_lasts(tmp_path, monkeypatch, shown, code, may_retry, message):
    program = tmp_path / "scontrol"
    program.write_text(f'#!/bin/sh\nif [ "$1" = show ]; then echo "{shown}"; else echo refused >&2; exit {code}; fi\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    launcher, messages = SLURMLauncher({"SLURM_JOB_ID": "7"}), []
    assert launcher.release(datetime.now(timezone.utc), messages.append) is None
    assert message in messages[0]
    assert launcher.can_release is may_retry
    assert launcher.refused_at is not None


def test_without_scontrol_no_release_is_tried_again(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    launcher = SLURMLauncher({"SLURM_JOB_ID": "7"})
    assert launcher.release(datetime.now(timezone.utc), [].append) is None
    assert not launcher.can_release
