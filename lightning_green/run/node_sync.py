"""Synchronize the nodes of a training: one run directory, ledgers that are up to date, common throttle levels."""

from __future__ import annotations

import logging
import socket
import time
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch.distributed as dist

from lightning_green.ledger.events import Sample
from lightning_green.run.session import Session
from lightning_green.strategies.control_group import ControlGroup
from lightning_green.strategies.training_group import control_group_of
from lightning_green.utilities.reading import UnreadableFileError, read_json

log = logging.getLogger(__name__)

VISIBLE_SECONDS = 10.0
"""How long to wait for rank 0's directory: on a network file system, a new directory may appear seconds later."""


class RunAddress(NamedTuple):
    """The run that rank 0 has opened, for the other nodes."""

    path: str
    run_id: str
    attempt: int
    fit: int


def join_nodes(session: Session, trainer: pl.Trainer) -> tuple[ControlGroup, list[str]]:
    """Start the measurement on all nodes, and open the ledger of each; all processes call it together.

    Returns:
        The control group (a single rank if there is one node), and on rank 0 a sentence about each node whose energy is
        in no total. Training continues without it.

    """
    if session.node.count == 1:
        return ControlGroup(), []
    if not dist.is_initialized():
        log.warning("Only the energy of rank 0's node is counted: this strategy does not use torch.distributed.")
        return ControlGroup(), []
    ranks = control_group_of(trainer, session.clock)
    if ranks.is_rank_zero:
        session.start()  # the other nodes start once they have its time
    return ranks, _open_ledgers(session, ranks)


def _open_ledgers(session: Session, ranks: ControlGroup) -> list[str]:
    address = None
    if ranks.is_rank_zero and session.folder is not None:
        address = RunAddress(str(session.folder.path), session.folder.record["run_id"], session.attempt, session.fit)
    now, address = ranks.broadcast((session.clock.time(), address))
    problem = None
    if not ranks.is_rank_zero and session.node.process == 0:
        session.clock.go_to(now)
        problem = f"{_node(session)} has no run directory to write to" if address is None else _join(session, address)
    problems = [
        f"{one}, so its energy is in no total. Use a run directory that every node can write: set "
        "LIGHTNING_GREEN_RUN_DIR or Trainer(default_root_dir=...)."
        for one in ranks.gather(problem)
        if one is not None
    ]
    for line in problems:
        log.warning("%s", line)
    return problems


def summarize_nodes(session: Session, ranks: ControlGroup) -> dict[str, Any]:
    """Return the totals of all nodes up to this moment; all processes call it together."""
    if session.node.count == 1:
        return session.summary()
    sync_ledgers(session, ranks)
    try:
        summary: dict[str, Any] = ranks.broadcast(session.summary() if ranks.is_rank_zero else None)
    except RuntimeError:  # a lost process, about which sync_ledgers has warned
        return session.summary()
    return summary


def sync_ledgers(session: Session, ranks: ControlGroup) -> None:
    """Write the energy up to now to the ledger of every node; all processes call it together.

    Warns if a process is gone: the end of a training or a planned exit must not fail because of that.
    """
    if session.node.count == 1:
        return
    try:
        session.clock.go_to(ranks.broadcast(session.clock.time()))
        if not ranks.is_rank_zero and session.ledger is not None and session.announced:
            session.meter.sample()
            session.record(Sample())
            session.ledger.sync()
        ranks.gather(None)
    except RuntimeError as error:
        log.warning(
            "A process of this training is gone, so the totals contain only what its node had written: %s",
            (str(error).splitlines() or [""])[0],
        )


def names_on_all_nodes(session: Session, ranks: ControlGroup, names: list[str]) -> list[str]:
    """Return the ``names`` that every node has, in rank 0's order; all processes call it together."""
    if session.node.count == 1:
        return names
    given = [one for one in ranks.gather(names if session.node.process == 0 else None) if one is not None]
    found: list[str] = ranks.broadcast([name for name in names if all(name in one for one in given)])
    return found


def _join(session: Session, address: RunAddress) -> str | None:
    """Open this node's ledger; return the problem, or None."""
    path, limit = Path(address.path), time.monotonic() + VISIBLE_SECONDS
    while not _is_run(path, address.run_id):
        if time.monotonic() > limit:
            return f"{_node(session)} does not see the run directory {path} of rank 0"
        time.sleep(0.2)
    try:
        session.join(path, address.attempt, address.fit)
    except OSError as error:
        return f"{_node(session)} cannot write its ledger in {path} ({error.strerror})"
    return None


def _is_run(path: Path, run_id: str) -> bool:
    try:
        record = read_json(path / "run.json")
    except (OSError, UnreadableFileError):
        return False
    return isinstance(record, dict) and record.get("run_id") == run_id


def _node(session: Session) -> str:
    return f"Node {session.node.rank} ({socket.gethostname()})"
