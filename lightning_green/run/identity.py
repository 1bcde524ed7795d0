"""What tells one invocation of a training script from another."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RUN_NAME_VARIABLE = "LIGHTNING_GREEN_RUN_NAME"

DISTINGUISHING_VARIABLES = (
    RUN_NAME_VARIABLE,
    "SLURM_ARRAY_TASK_ID",
    "PBS_ARRAY_INDEX",
    "PBS_ARRAYID",
    "SGE_TASK_ID",
    "LSB_JOBINDEX",
    "AWS_BATCH_JOB_ARRAY_INDEX",
    "JOB_COMPLETION_INDEX",
    "WANDB_SWEEP_ID",
)
"""Environment variables that are part of a run's identity: a run name, array tasks, sweep agents."""

_NOT_SET = {"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0"}  # what these say of a job that is no array

# Differ between two starts of the same training, or belong to the shell and not to the user.
_VOLATILE_VARIABLES = frozenset(
    {"_", "COLUMNS", "LINES", "OLDPWD", "PL_GLOBAL_SEED", "PWD", "SHLVL", "TMPDIR", "MASTER_ADDR", "XDG_RUNTIME_DIR"}
    | {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"}
)
_VOLATILE_PREFIXES = (
    *("LIGHTNING_GREEN_", "WANDB_", "PYTHON", "OMP_", "KMP_", "SSH_"),
    *("SLURM_", "TORCHELASTIC_", "OMPI_", "PMI", "PRTE_", "MPI_"),  # of launchers: each start gets others
)
_VOLATILE_SUFFIXES = ("_PID", "_PORT", "_SOCK")

_STARTED_IN = os.getcwd()  # before the script changes its directory, as Hydra does


@dataclass(frozen=True)
class Invocation:
    """One invocation of a training script: the same one, started again, is equal.

    Args:
        script: Absolute path of the script; ``"interactive"`` without one.
        arguments: Its arguments.
        directory: Working directory.
        variables: The :data:`DISTINGUISHING_VARIABLES` that are set.
        simulated: Whether it runs on a simulated clock.

    """

    script: str
    arguments: tuple[str, ...] = ()
    directory: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = False

    @classmethod
    def of_process(cls, simulated: bool = False, environment: Mapping[str, str] = os.environ) -> Invocation:
        """Return the invocation of this process."""
        words, where = command_line(), _STARTED_IN
        return cls(_script(words[0], where), tuple(words[1:]), where, distinguishing(environment), simulated)

    def to_json(self) -> dict[str, Any]:
        """Return the invocation as JSON types; time stamps and random names in its arguments count as equal."""
        from lightning_green.resume.description import describe  # needs PyTorch, which the supervisor does without

        return {
            "script": self.script,
            "arguments": [describe(word) for word in self.arguments],
            "directory": self.directory,
            "variables": dict(self.variables),
            "simulated": self.simulated,
        }

    @property
    def name(self) -> str:
        """The name of its run directory: ``<script>-<8 hex digits>``, with ``-simulated`` on a simulated clock."""
        name = run_name([self.script, *self.arguments], self.directory, self.variables)
        return f"{name}-simulated" if self.simulated else name


def distinguishing(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the :data:`DISTINGUISHING_VARIABLES` that are set, with their values.

    A W&B sweep agent gives each of its trainings a ``WANDB_RUN_ID``, which then belongs to them.

    Example::

        >>> distinguishing({"SLURM_ARRAY_TASK_ID": "3", "HOME": "/home/me"})
        {'SLURM_ARRAY_TASK_ID': '3'}

    """
    found = {name: environment[name] for name in DISTINGUISHING_VARIABLES if environment.get(name)}
    found = {name: value for name, value in found.items() if _NOT_SET.get(name) != value}
    if "WANDB_SWEEP_ID" in found and environment.get("WANDB_RUN_ID"):
        found["WANDB_RUN_ID"] = environment["WANDB_RUN_ID"]
    return found


def run_name(arguments: Sequence[str], directory: str | None = None, variables: Mapping[str, str] | None = None) -> str:
    """Return ``<script>-<8 hex digits>`` for a command line, its working directory and its distinguishing variables.

    A Python interpreter at the start is left out, so ``python train.py`` and ``train.py`` have the same name.

    Example::

        >>> run_name(["python", "train.py", "--lr", "1"], "/home/me") == run_name(["train.py", "--lr", "1"], "/home/me")
        True

    """
    where = directory or os.getcwd()
    words = list(arguments)
    if words and Path(words[0]).name.startswith("python"):
        words = words[1:]
        while words and words[0].startswith("-") and words[0] not in ("-m", "-c"):
            words = words[1:]
        if words[:1] == ["-m"]:
            words = words[1:]
    words[:1] = ["inline" if words[0] == "-c" else _script(words[0], where)] if words else ["interactive"]
    identity = [where, words, *([dict(variables)] if variables else [])]
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    scripts = [word for word in words if word.endswith((".py", ".sh"))]  # `bash sweep.sh`, `torchrun ... train.py`
    name = Path(scripts[0] if scripts else words[0]).stem or "run"
    return f"{name}-{digest}"


def command_line() -> list[str]:
    """Return this process's script and its arguments."""
    return list(sys.argv) if sys.argv and sys.argv[0] not in ("", "-c") else ["interactive"]


def set_since(supervisor: int, environment: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """Return the variables that were set between the supervisor and this process, with a short digest of each value.

    A wrapper such as ``for s in 1 2 3; do SEED=$s python train.py; done`` tells its trainings apart by nothing else. No
    value is kept, as variables may hold secrets, and time stamps and random names count as equal.

    Args:
        supervisor: Process id of the supervisor.
        environment: The environment of this process.

    Returns:
        The variables, or None where the supervisor's environment cannot be read.

    """
    from lightning_green.resume.description import describe  # needs PyTorch, which the supervisor does without

    try:
        data = Path(f"/proc/{supervisor}/environ").read_bytes()
    except OSError:
        return None
    before = dict(line.partition("=")[::2] for line in data.decode(errors="replace").split("\0") if line)
    return {
        name: hashlib.sha256(str(describe(value)).encode()).hexdigest()[:6]
        for name, value in sorted(environment.items())
        if before.get(name) != value and not _is_volatile(name)
    }


def _is_volatile(name: str) -> bool:
    return name in _VOLATILE_VARIABLES or name.startswith(_VOLATILE_PREFIXES) or name.endswith(_VOLATILE_SUFFIXES)


def differing(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> list[str]:
    """Return the names of the variables in which two results of :func:`set_since` differ; none where one is unknown."""
    if one is None or other is None:
        return []
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _script(word: str, directory: str) -> str:
    """Return a script's absolute path; the name of a program that is looked up in ``PATH`` stays."""
    return os.path.normpath(os.path.join(directory, word)) if "/" in word or word.endswith(".py") else word
