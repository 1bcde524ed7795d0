"""Requeueing of SLURM jobs with a fake ``scontrol``. A real training is requeued in ``tests/resume/test_slurm.py``."""

import pytest

from lightning_green.supervisor.launchers import SLURMLauncher, requeue


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
