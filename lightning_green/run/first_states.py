"""The random states with which a process began, so that a script without a seed draws the same at each start."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import torch

from lightning_green.ledger.run_directory import (
    ATTEMPT_VARIABLE,
    RANDOM_STATES,
    RESUME_VARIABLE,
    RUN_DIR_VARIABLE,
    SUPERVISED_VARIABLE,
)
from lightning_green.resume.checkpoints import DAMAGED, load_tensors
from lightning_green.resume.random_states import capture_random_states, restore_random_states
from lightning_green.run.identity import Invocation
from lightning_green.utilities.files import atomic_file
from lightning_green.utilities.trusted_files import make_private

log = logging.getLogger(__name__)

_RANK_VARIABLES = ("NODE_RANK", "RANK", "SLURM_PROCID", "LOCAL_RANK")
_RESTARTS_OF_TORCHRUN = "TORCHELASTIC_RESTART_COUNT"

_unwritten: tuple[str, dict[str, Any]] | None = None  # with the name of the process when it began


def begin_process() -> None:
    """Set the global random states to those with which this process began in an earlier start of its command.

    In the first start they are recorded and not changed. A script with a seed has the same states in each start, so
    nothing changes for it. Processes with the same invocation are distinguished by their order.

    It is called when the callbacks are imported: before a script splits or generates its data.
    """
    global _unwritten
    home = os.environ.get(RUN_DIR_VARIABLE)
    if parent_process() is not None:  # a worker
        return
    if not home or not os.environ.get(RESUME_VARIABLE):
        _unwritten = _name(), capture_random_states(with_cuda=False)
        return
    directory = Path(home) / RANDOM_STATES
    try:
        if SUPERVISED_VARIABLE not in os.environ:
            make_private(directory)
        directory.mkdir(mode=0o700, exist_ok=True)  # one that was renamed is not created again
        path = _claim(directory)
        if path.exists():
            restore_random_states(load_tensors(path))
        else:
            _write(path, capture_random_states(with_cuda=False))
    except DAMAGED as error:
        log.warning("The random states of the first start are not used: %s. Seed the script.", error)


def keep(run: Path) -> None:
    """Record the states with which this process began, if it began without a run directory.

    Args:
        run: Run directory, which another process may continue.

    """
    global _unwritten
    begun, _unwritten = _unwritten, None
    if begun is None:
        return
    name, states = begun
    try:
        directory = run / RANDOM_STATES
        make_private(directory)
        _write(directory / f"{name}-0.pt", states)
    except OSError as error:
        log.warning("The random states could not be recorded: %s.", error)


def _claim(directory: Path) -> Path:
    """Return the file of this process: of those of its invocation, the next one in this attempt."""
    name, attempt = _name(), os.environ.get(ATTEMPT_VARIABLE, f"pid{os.getpid()}").replace("/", "-")
    attempt += f"-{os.environ.get(_RESTARTS_OF_TORCHRUN, '0')}"
    for old in directory.glob(f"{name}-*.claim-*"):
        if not old.name.endswith(f".claim-{attempt}"):
            old.unlink(missing_ok=True)
    for number in itertools.count():
        try:
            os.close(os.open(directory / f"{name}-{number}.claim-{attempt}", os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            continue
        return directory / f"{name}-{number}.pt"
    raise AssertionError


def _name() -> str:
    """Return a name of this invocation and rank, which is the same in a copy of the working directory."""
    invocation = Invocation.of_process().to_json()
    directory = invocation["directory"]
    script = os.path.relpath(os.path.join(directory, invocation["script"]), directory)
    ranks = [os.environ.get(variable, "") for variable in _RANK_VARIABLES]
    identity = json.dumps([script, invocation["arguments"], invocation["variables"], ranks], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _write(path: Path, states: dict[str, Any]) -> None:
    with atomic_file(path, permissions=0o600) as file:
        torch.save(states, file)
