"""Identity of an invocation of a training script."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_green.utilities.redaction import redact_words

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

_NOT_SET = {"SGE_TASK_ID": "undefined", "LSB_JOBINDEX": "0"}  # values in a job that is not an array

# Variables that differ between two starts of the same training or that the shell sets.
_VOLATILE_VARIABLES = frozenset(
    {"_", "COLUMNS", "LINES", "OLDPWD", "PL_GLOBAL_SEED", "PWD", "SHLVL", "TMPDIR", "MASTER_ADDR", "XDG_RUNTIME_DIR"}
    | {"CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"}
)
_VOLATILE_PREFIXES = (
    *("LIGHTNING_GREEN_", "WANDB_", "PYTHON", "OMP_", "KMP_", "SSH_"),
    *("SLURM_", "TORCHELASTIC_", "OMPI_", "PMI", "PRTE_", "MPI_"),  # launchers set new values for each start
)
_VOLATILE_SUFFIXES = ("_PID", "_PORT", "_SOCK")

_STARTED_IN = os.getcwd()  # read at import, before the script changes its directory as Hydra does


@dataclass(frozen=True)
class Invocation:
    """One invocation of a training script. Two starts of the same invocation are equal.

    Args:
        script: Absolute path of the script; ``"interactive"`` without one.
        arguments: Its arguments.
        directory: Working directory.
        variables: The ``DISTINGUISHING_VARIABLES`` that are set.
        simulated: Whether the clock is simulated.

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
        return cls(_script(words[0], where), tuple(words[1:]), where, distinguishing_variables(environment), simulated)

    def to_json(self) -> dict[str, Any]:
        """Return the invocation as JSON types, with placeholders for timestamps, random names and secrets."""
        from lightning_green.resume.description import describe  # imports PyTorch, which the supervisor does not need

        return {
            "script": self.script,
            "arguments": [
                describe(word) if word == redacted else redacted
                for word, redacted in zip(self.arguments, redact_words(self.arguments), strict=True)
            ],
            "directory": self.directory,
            "variables": dict(self.variables),
            "simulated": self.simulated,
        }

    @property
    def name(self) -> str:
        """Name of the run directory: ``<script>-<8 hex digits>``, followed by ``-simulated`` for a simulated clock."""
        name = run_name([self.script, *self.arguments], self.directory, self.variables)
        return f"{name}-simulated" if self.simulated else name


def distinguishing_variables(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the ``DISTINGUISHING_VARIABLES`` that are set, with their values.

    In a W&B sweep, ``WANDB_RUN_ID`` is included because the agent sets it for each training.

    Examples:
        >>> distinguishing_variables({"SLURM_ARRAY_TASK_ID": "3", "HOME": "/home/me"})
        {'SLURM_ARRAY_TASK_ID': '3'}

    """
    found = {name: environment[name] for name in DISTINGUISHING_VARIABLES if environment.get(name)}
    found = {name: value for name, value in found.items() if _NOT_SET.get(name) != value}
    if "WANDB_SWEEP_ID" in found and environment.get("WANDB_RUN_ID"):
        found["WANDB_RUN_ID"] = environment["WANDB_RUN_ID"]
    return found


def run_name(arguments: Sequence[str], directory: str | None = None, variables: Mapping[str, str] | None = None) -> str:
    """Return ``<script>-<8 hex digits>`` for a command line, its working directory and its distinguishing variables.

    A leading Python interpreter is ignored, so ``python train.py`` and ``train.py`` have the same name.

    Examples:
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
    """Return the script of this process and its arguments."""
    return list(sys.argv) if sys.argv and sys.argv[0] not in ("", "-c") else ["interactive"]


def variables_set_since(supervisor: int, environment: Mapping[str, str] = os.environ) -> dict[str, str] | None:
    """Return the variables that were set between the supervisor and this process, with a short digest of each value.

    They distinguish the trainings of a wrapper such as ``for s in 1 2 3; do SEED=$s python train.py; done``. Values are
    not stored because they may be secrets. Timestamps and random names have equal digests.

    Args:
        supervisor: Process id of the supervisor.
        environment: The environment of this process.

    Returns:
        Digests by name, or None if the environment of the supervisor cannot be read.

    """
    from lightning_green.resume.description import describe  # imports PyTorch, which the supervisor does not need

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


def differing_variables(one: Mapping[str, str] | None, other: Mapping[str, str] | None) -> list[str]:
    """Return the names that differ between two results of ``variables_set_since``; none if one result is None."""
    if one is None or other is None:
        return []
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def _script(word: str, directory: str) -> str:
    """Return the absolute path of a script. The name of a program in ``PATH`` is returned unchanged."""
    return os.path.normpath(os.path.join(directory, word)) if "/" in word or word.endswith(".py") else word
