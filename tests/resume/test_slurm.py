"""SLURM's signal before a job's time is over: the state is saved, and the job queued again by SLURM's command."""

import os

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lightning_green.ledger.ledger import read_ledger
from tests.resume.kit import Case, attempt, differences, outcome, repeated

CASE = Case(trainer={"plugins": [SLURMEnvironment(auto_requeue=True)]})


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """A job of SLURM's, as far as its environment tells, and a ``scontrol`` that writes down what it is told."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return tmp_path / "told"


@pytest.mark.parametrize("batch", [2, 5])
def test_the_requeue_signal_saves_and_requeues(slurm, batch, tmp_path, monkeypatch):
    assert attempt(tmp_path / "whole", CASE) is None
    assert isinstance(attempt(tmp_path / "parts", CASE, f"usr1@batch:{batch}"), SystemExit)
    assert slurm.read_text() == "requeue 7\n"
    assert read_ledger(tmp_path / "parts" / "run")[-1]["signal"] == "SIGUSR1"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert attempt(tmp_path / "parts", CASE) is None
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "parts")) == []
    assert repeated(tmp_path / "parts") == 0


def test_a_job_that_cannot_be_queued_again_says_so(slurm, tmp_path, caplog):
    (tmp_path / "bin" / "scontrol").write_text(
        "#!/bin/sh\necho 'Requested operation is presently disabled' >&2; exit 1\n"
    )
    assert isinstance(attempt(tmp_path / "parts", CASE, "usr1@batch:2"), SystemExit)
    assert "The SLURM job 7 could not be requeued (Requested operation is presently disabled" in caplog.text
