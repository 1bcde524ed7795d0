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

from lightning_green.runtime.ranks import Ranks
from lightning_green.runtime.run import Run

log = logging.getLogger(__name__)

VISIBLE_SECONDS = 10.0
"""How long to look for rank 0's folder: a network file system may take some seconds to show what is new."""


class Invitation(NamedTuple):
    """What rank 0 tells the other nodes of the run that it has opened."""

    path: str
    run_id: str
    attempt: int


def meet_nodes(run: Run, trainer: pl.Trainer) -> tuple[Ranks, list[str]]:
    """Return the processes of a training with several nodes, and what :func:`introduce` does; with one node nothing."""
    if run.node.count == 1:
        return Ranks(), []
    if not dist.is_initialized():
        log.warning("The energy of rank 0's node alone is counted: this strategy does not use torch.distributed.")
        return Ranks(), []
    ranks = Ranks(trainer.global_rank, trainer.world_size, run.clock)
    if ranks.leads:
        run.start()  # the others start once they know its time
    return ranks, introduce(run, ranks)


def introduce(run: Run, ranks: Ranks) -> list[str]:
    """Have the first process of every other node open its ledger in rank 0's folder; all processes call it together.

    Returns:
        On rank 0 a sentence about each node whose energy is in no total. The training goes on without it.

    """
    invitation = None
    if ranks.leads and run.folder is not None:
        invitation = Invitation(str(run.folder.path), run.folder.record["run_id"], run.attempt)
    now, invitation = ranks.share((run.clock.time(), invitation))
    problem = None
    if not ranks.leads and run.node.process == 0:
        run.clock.go_to(now)
        problem = f"{_who(run)} has no run folder to write to" if invitation is None else _join(run, invitation)
    found = [
        f"{one}, so its energy is in no total. Give the run a folder that every node sees, with "
        "LIGHTNING_GREEN_RUN_DIR or Trainer(default_root_dir=...)."
        for one in ranks.gather(problem)
        if one is not None
    ]
    for line in found:
        log.warning("%s", line)
    return found


def summarise_nodes(run: Run, ranks: Ranks) -> dict[str, Any]:
    """Return the totals of all nodes up to this moment; all processes call it together."""
    if run.node.count == 1:
        return run.summary()
    bring_up_to_date(run, ranks)
    try:
        summary: dict[str, Any] = ranks.share(run.summary() if ranks.leads else None)
    except RuntimeError:  # of gloo, which :func:`bring_up_to_date` has told of
        return run.summary()
    return summary


def bring_up_to_date(run: Run, ranks: Ranks) -> None:
    """Have the ledger of every node hold its energy up to now; all processes call it together.

    Where a process is gone this warns: the end of a training, or a planned exit, is not the place to fail.
    """
    if run.node.count == 1:
        return
    try:
        run.clock.go_to(ranks.share(run.clock.time()))
        if not ranks.leads and run.ledger is not None and run.announced:
            run.meter.sample()
            run.record("sample")
            run.ledger.sync()
        ranks.gather(None)
    except RuntimeError as error:
        log.warning(
            "A process of this training is gone, so the totals have what its node had written: %s",
            (str(error).splitlines() or [""])[0],
        )


def in_common(run: Run, ranks: Ranks, names: list[str]) -> list[str]:
    """Return which ``names`` the first processes of all nodes give, in rank 0's order; all call it together."""
    if run.node.count == 1:
        return names
    given = [one for one in ranks.gather(names if run.node.process == 0 else None) if one is not None]
    found: list[str] = ranks.share([name for name in names if all(name in one for one in given)])
    return found


def _join(run: Run, invitation: Invitation) -> str | None:
    """Open this node's ledger; return what is in the way, or None."""
    path, limit = Path(invitation.path), time.monotonic() + VISIBLE_SECONDS
    while not _is_it(path, invitation.run_id):
        if time.monotonic() > limit:
            return f"{_who(run)} does not see the run folder {path} of rank 0"
        time.sleep(0.2)
    try:
        run.join(path, invitation.attempt)
    except OSError as error:
        return f"{_who(run)} cannot write its ledger in {path} ({error.strerror})"
    return None


def _is_it(path: Path, run_id: str) -> bool:
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and record.get("run_id") == run_id


def _who(run: Run) -> str:
    return f"Node {run.node.rank} ({socket.gethostname()})"
