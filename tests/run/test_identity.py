"""Identity of an invocation of a script."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_green.run.identity import (
    Invocation,
    differing_variables,
    distinguishing_variables,
    run_name,
    variables_set_since,
)


@pytest.mark.parametrize(
    "words",
    [
        ["train.py", "--lr", "1"],
        ["python", "train.py", "--lr", "1"],
        ["/usr/bin/python3.11", "-u", "train.py", "--lr", "1"],
        ["python", "/home/me/train.py", "--lr", "1"],
        ["python", "./train.py", "--lr", "1"],
    ],
)
def test_name_does_not_depend_on_interpreter_and_spelling_of_path(words):
    assert run_name(words, "/home/me") == run_name(["train.py", "--lr", "1"], "/home/me")
    assert run_name(words, "/home/me").startswith("train-")


def test_name_depends_on_script_arguments_directory_and_variables():
    names = {
        run_name(words, directory, variables)
        for words in (
            ["train.py"],
            ["train.py", "--lr", "1"],
            ["train.py", "--lr", "2"],
            ["a/train.py"],
            ["b/train.py"],
        )
        for directory in ("/a", "/b")
        for variables in ({}, {"SLURM_ARRAY_TASK_ID": "1"}, {"SLURM_ARRAY_TASK_ID": "2"})
    }
    assert len(names) == 5 * 2 * 3


def test_modules_wrappers_and_notebooks_have_names(monkeypatch, tmp_path):
    assert run_name(["python", "-m", "package.train"], "/a").startswith("package-")
    assert run_name(["bash", "sweep.sh"], "/a").startswith("sweep-")
    assert run_name(["torchrun", "--nproc_per_node", "2", "train.py"], "/a").startswith("train-")
    assert run_name([], "/a").startswith("interactive-")
    monkeypatch.chdir(tmp_path)
    assert run_name(["train.py"]) == run_name(["train.py"], os.getcwd())


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"SEED": "1", "SLURM_JOB_ID": "77"}, {}),  # a resubmitted job continues its run
        ({"SLURM_ARRAY_TASK_ID": "3"}, {"SLURM_ARRAY_TASK_ID": "3"}),
        ({"LIGHTNING_GREEN_RUN_NAME": "trial-7"}, {"LIGHTNING_GREEN_RUN_NAME": "trial-7"}),
        ({"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0"}, {}),
        ({"SGE_TASK_ID": "2", "LSB_JOBINDEX": "4"}, {"SGE_TASK_ID": "2", "LSB_JOBINDEX": "4"}),
        ({"WANDB_RUN_ID": "abc"}, {}),
        ({"WANDB_RUN_ID": "abc", "WANDB_SWEEP_ID": "s"}, {"WANDB_RUN_ID": "abc", "WANDB_SWEEP_ID": "s"}),
    ],
)
def test_distinguishing_variables_of_array_tasks_and_sweeps(environment, expected):
    assert distinguishing_variables(environment) == expected


def test_invocation_of_this_process_uses_its_initial_directory(monkeypatch, tmp_path):
    monkeypatch.setattr("lightning_green.run.identity._STARTED_IN", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["train.py", "--lr", "1"])
    real, rehearsal = Invocation.of_process(), Invocation.of_process(simulated=True)
    assert (real.script, real.arguments, real.directory) == (str(tmp_path / "train.py"), ("--lr", "1"), str(tmp_path))
    assert rehearsal.name == f"{real.name}-simulated"
    assert real.to_json() != rehearsal.to_json()
    assert real.name == run_name(["python", "train.py", "--lr", "1"], str(tmp_path))
    monkeypatch.chdir(tmp_path.parent)  # as Hydra does before `fit`
    assert Invocation.of_process() == real


def test_timestamps_in_arguments_are_ignored():
    outs = ("runs/2026-11-26_12-44-01", "runs/2026-11-26_12-44-59", "runs/else")
    one, other, another = (Invocation("/a/train.py", ("--out", out), "/a").to_json() for out in outs)
    assert one == other
    assert one != another


def test_variables_set_since_the_supervisor_have_digests_without_values():
    given = {"PATH": os.environ["PATH"], "KEPT": "1", "SECRET": "before"}
    supervisor = subprocess.Popen(["sleep", "60"], env=given)
    try:
        while b"KEPT" not in Path(f"/proc/{supervisor.pid}/environ").read_bytes():  # wait for the start
            time.sleep(0.01)
        one = variables_set_since(supervisor.pid, {**given, "SEED": "1", "PWD": "/x", "WHEN": "2026-11-26 12:00:01"})
        other = variables_set_since(supervisor.pid, {**given, "SEED": "2", "SECRET": "hunter2", "SLURM_STEP_ID": "4"})
    finally:
        supervisor.kill()
        supervisor.wait()
    assert set(one) == {"SEED", "WHEN"}
    assert set(other) == {"SEED", "SECRET"}
    assert "hunter2" not in str(other)
    assert differing_variables(one, other) == ["SECRET", "SEED", "WHEN"]
    assert differing_variables(one, {**one}) == differing_variables(None, one) == differing_variables(one, None) == []


def test_variables_are_unknown_if_the_supervisor_has_ended():
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert variables_set_since(gone.pid, {"SEED": "1"}) is None
