"""Detection of launchers by their environment variables."""

import pytest

from lightning_green.supervisor.launchers import (
    choose_launcher,
    detect_launchers,
    limit_signal,
    requeue,
    requeued,
    who_restarts,
)


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({}, []),
        ({"LIGHTNING_GREEN_SUPERVISED": "4711"}, ["lightning-green run"]),
        ({"SLURM_JOB_ID": "7"}, ["SLURM"]),
        ({"TORCHELASTIC_RUN_ID": "none"}, ["torchrun"]),
        (
            {"TORCHELASTIC_RUN_ID": "none", "SLURM_JOB_ID": "7", "LIGHTNING_GREEN_SUPERVISED": "4711"},
            ["lightning-green run", "SLURM", "torchrun"],
        ),
    ],
)
def test_all_active_launchers_are_detected(variables, names):
    assert [launcher.name for launcher in detect_launchers(variables)] == names


def test_script_without_supervisor_is_not_restarted():
    assert who_restarts({}) is None
    assert who_restarts({"LIGHTNING_GREEN_SUPERVISED": ""}) is None
    assert who_restarts({"LIGHTNING_GREEN_RUN_DIR": "run", "LIGHTNING_GREEN_RESUME": "1"}) is None


def test_supervisor_is_detected_by_its_variable(monkeypatch):
    assert who_restarts({"LIGHTNING_GREEN_SUPERVISED": "4711"}) == "lightning-green run"
    assert who_restarts() is None
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    assert who_restarts() == "lightning-green run"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, False),
        ({"SLURM_JOB_ID": "7"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "0"}, False),
        ({"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "2"}, True),
        ({"SLURM_RESTART_COUNT": "1"}, True),
        ({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0"}, False),
        ({"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "1"}, True),
    ],
)
def test_restart_count_marks_a_requeued_job_and_restarted_workers(variables, expected):
    assert requeued(variables) is expected


def test_supervisor_waits_itself_unless_another_launcher_is_chosen():
    in_job = {"SLURM_JOB_ID": "7"}
    assert [choose_launcher(name, in_job).can_release for name in ("auto", "local", "slurm")] == [False, False, True]
    with pytest.raises(ValueError, match="not part of a SLURM job"):
        choose_launcher("slurm", {})
    with pytest.raises(ValueError, match="auto, local, slurm or kubernetes"):
        choose_launcher("pbs", in_job)


def test_training_does_not_requeue_a_job_that_its_supervisor_requeues(tmp_path, monkeypatch):
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/called\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    requeue({"SLURM_JOB_ID": "7", "LIGHTNING_GREEN_RELEASES": "SLURM"})
    assert not (tmp_path / "called").exists()
    requeue({"SLURM_JOB_ID": "7"})
    assert (tmp_path / "called").exists()
    assert limit_signal({}) is None
