"""Options of a job that is submitted again, with a fake ``scontrol`` and ``sbatch``."""

import time

import pytest

from lightning_green.supervisor.launchers.slurm_job import SLURMJob
from lightning_green.supervisor.launchers.slurm_resubmission import resubmit, why_not_resubmitted


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """Return a function that submits a job again and returns the options of ``sbatch``."""
    for name, line in (("scontrol", ":"), ("sbatch", f'printf "%s\\n" "$@" > {tmp_path}/words; echo 8')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    def submit(line):
        job = SLURMJob.parse(f"JobId=7 Requeue=1 {line}")
        assert resubmit("7", job, time.time() + 60.0) == "8"
        return (tmp_path / "words").read_text().splitlines()

    return submit


@pytest.mark.parametrize(
    ("line", "option"),
    [
        ("TresPerJob=gres/gpu:4", "--gpus=4"),
        ("TresPerJob=gres:gpu:a100:4", "--gpus=a100:4"),
        ("TresPerJob=gres/gpu:a100=4", "--gpus=a100:4"),
        ("TresPerJob=gres/gpu", "--gpus=1"),
        ("TresPerJob=gres/gpu:a100:2,gres/gpu:h100:2", "--gpus=a100:2,h100:2"),
        ("TresPerTask=cpu=2,gres/gpu=1", "--gpus-per-task=1"),
        ("TresPerTask=gres/gpu:2", "--gpus-per-task=2"),
        ("TresPerSocket=gres/gpu:2", "--gpus-per-socket=2"),
        ("TresPerNode=gres/gpu:4", "--gres=gpu:4"),
        ("TresPerNode=gres:nvme:1", "--gres=nvme:1"),
        ("ExcNodeList=node[3-4]", "--exclude=node[3-4]"),
        ("ReqNodeList=node7", "--nodelist=node7"),
    ],
)
def test_devices_and_nodes_are_requested_again(submitted, line, option):
    assert option in submitted(line)


def test_nothing_is_requested_that_the_job_has_not_requested(submitted):
    words = submitted("TresPerTask=cpu=2 ExcNodeList=(null) ReqNodeList=(null)")
    assert [word for word in words if "gpu" in word or "gres" in word or "node" in word] == []


@pytest.mark.parametrize(
    ("line", "is_possible"),
    [
        ("AllocTRES=cpu=8,mem=4G,node=1,billing=8", True),
        ("AllocTRES=cpu=8,gres/gpu=4 TresPerJob=gres/gpu:4", True),
        ("AllocTRES=cpu=8,gres/gpu=4,gres/gpu:a100=4 TresPerNode=gres:gpu:a100:4", True),
        ("AllocTRES=cpu=8,gres/gpu=4", False),
        ("TRES=cpu=8,gres/gpu:a100=4", False),
        ("AllocTRES=cpu=8,gres/gpu=4 TresPerNode=gres/nvme:1", False),
    ],
)
def test_job_whose_gpus_would_be_lost_is_not_submitted_again(line, is_possible):
    problem = why_not_resubmitted(SLURMJob.parse(f"JobId=7 {line}"))
    assert (problem is None) is is_possible
    assert problem is None or "--gres=gpu:N" in problem
