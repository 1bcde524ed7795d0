"""Detection of launchers by their environment variables."""

import pytest

from lightning_green.supervisor.launchers import detect_launchers, requeued, who_restarts


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
