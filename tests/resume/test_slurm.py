"""SLURM's signal before the time limit of a job: the state is saved, and the job is requeued."""

import os

import pytest
from lightning.pytorch.plugins.environments import SLURMEnvironment

from tests.helpers.ledgers import read_records
from tests.helpers.resume_training import Case, attempt, differences, outcome, repeated

CASE = Case(trainer={"plugins": [SLURMEnvironment(auto_requeue=True)]})


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Set the environment of a SLURM job, with a ``scontrol`` that records its arguments; return the record."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "scontrol"
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.log\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    for name, value in {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "1", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    return tmp_path / "scontrol.log"


@pytest.mark.parametrize("batch", [2, 5])
def test_requeue_signal_saves_and_requeues(slurm, batch, tmp_path, monkeypatch):
    assert attempt(tmp_path / "whole", CASE) is None
    assert isinstance(attempt(tmp_path / "parts", CASE, f"usr1@batch:{batch}"), SystemExit)
    assert slurm.read_text() == "requeue 7\n"
    assert read_records(tmp_path / "parts" / "run")[-1]["signal"] == "SIGUSR1"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert attempt(tmp_path / "parts", CASE) is None
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "parts")) == []
    assert repeated(tmp_path / "parts") == 0


def test_failed_requeue_is_logged(slurm, tmp_path, caplog):
    (tmp_path / "bin" / "scontrol").write_text(
        "#!/bin/sh\necho 'Requested operation is presently disabled' >&2; exit 1\n"
    )
    assert isinstance(attempt(tmp_path / "parts", CASE, "usr1@batch:2"), SystemExit)
    assert "The SLURM job 7 could not be requeued (Requested operation is presently disabled" in caplog.text
