"""What the processes of several nodes do together: find the run's folder, and bring their ledgers up to date."""

from __future__ import annotations

import json
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

log = logging.getLogger(__name__)

VISIBLE_SECONDS = 10.0
"""How long to look for rank 0's folder: a network file system may take some seconds to show what is new."""


class Invitation(NamedTuple):
    """What rank 0 tells the other nodes of the run that it has opened."""

    path: str
    run_id: str
    attempt: int
    fit: int


def meet_nodes(session: Session, trainer: pl.Trainer) -> tuple[ControlGroup, list[str]]:
    """Return the processes of a training with several nodes, and what :func:`introduce` does; with one node nothing."""
    if session.node.count == 1:
        return ControlGroup(), []
    if not dist.is_initialized():
        log.warning("The energy of rank 0's node alone is counted: this strategy does not use torch.distributed.")
        return ControlGroup(), []
    ranks = ControlGroup(trainer.global_rank, trainer.world_size, session.clock)
    if ranks.is_rank_zero:
        session.start()  # the others start once they know its time
    return ranks, introduce(session, ranks)


def introduce(session: Session, ranks: ControlGroup) -> list[str]:
    """Have the first process of every other node open its ledger in rank 0's folder; all processes call it together.

    Returns:
        On rank 0 a sentence about each node whose energy is in no total. The training goes on without it.

    """
    invitation = None
    if ranks.is_rank_zero and session.folder is not None:
        invitation = Invitation(str(session.folder.path), session.folder.record["run_id"], session.attempt, session.fit)
    now, invitation = ranks.broadcast((session.clock.time(), invitation))
    problem = None
    if not ranks.is_rank_zero and session.node.process == 0:
        session.clock.go_to(now)
        problem = f"{_who(session)} has no run folder to write to" if invitation is None else _join(session, invitation)
    found = [
        f"{one}, so its energy is in no total. Give the run a folder that every node sees, with "
        "LIGHTNING_GREEN_RUN_DIR or Trainer(default_root_dir=...)."
        for one in ranks.gather(problem)
        if one is not None
    ]
    for line in found:
        log.warning("%s", line)
    return found


def summarise_nodes(session: Session, ranks: ControlGroup) -> dict[str, Any]:
    """Return the totals of all nodes up to this moment; all processes call it together."""
    if session.node.count == 1:
        return session.summary()
    bring_up_to_date(session, ranks)
    try:
        summary: dict[str, Any] = ranks.broadcast(session.summary() if ranks.is_rank_zero else None)
    except RuntimeError:  # of gloo, which :func:`bring_up_to_date` has told of
        return session.summary()
    return summary


def bring_up_to_date(session: Session, ranks: ControlGroup) -> None:
    """Have the ledger of every node hold its energy up to now; all processes call it together.

    Where a process is gone this warns: the end of a training, or a planned exit, is not the place to fail.
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
            "A process of this training is gone, so the totals have what its node had written: %s",
            (str(error).splitlines() or [""])[0],
        )


def in_common(session: Session, ranks: ControlGroup, names: list[str]) -> list[str]:
    """Return which ``names`` the first processes of all nodes give, in rank 0's order; all call it together."""
    if session.node.count == 1:
        return names
    given = [one for one in ranks.gather(names if session.node.process == 0 else None) if one is not None]
    found: list[str] = ranks.broadcast([name for name in names if all(name in one for one in given)])
    return found


def _join(session: Session, invitation: Invitation) -> str | None:
    """Open this node's ledger; return what is in the way, or None."""
    path, limit = Path(invitation.path), time.monotonic() + VISIBLE_SECONDS
    while not _is_it(path, invitation.run_id):
        if time.monotonic() > limit:
            return f"{_who(session)} does not see the run folder {path} of rank 0"
        time.sleep(0.2)
    try:
        session.join(path, invitation.attempt, invitation.fit)
    except OSError as error:
        return f"{_who(session)} cannot write its ledger in {path} ({error.strerror})"
    return None


def _is_it(path: Path, run_id: str) -> bool:
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("run_id") == run_id


def _who(session: Session) -> str:
    return f"Node {session.node.rank} ({socket.gethostname()})"
