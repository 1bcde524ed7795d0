"""Starting a new run: in the directory of the command if it is available, else in a directory below it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lightning_green.ledger.events import Failed, Finished, Interrupted
from lightning_green.ledger.history import RunHistory
from lightning_green.ledger.run_directory import RUNS, RunDirectory, RunIsAliveError
from lightning_green.run.candidates import Candidate, read_candidates
from lightning_green.run.claimant import Claimant


@dataclass(frozen=True)
class ClaimedRun:
    """A run directory that this process has locked.

    Args:
        directory: The run directory.
        history: History of the run.
        continuing: Whether the process continues the run.
        messages: Messages for the user.
        attempt: Number of this start of the run if an earlier fit of the same script has claimed it, else None.
        claimed: Fits that the script has claimed in this start.

    """

    directory: RunDirectory
    history: RunHistory
    continuing: bool
    messages: tuple[str, ...] = ()
    attempt: int | None = None
    claimed: tuple[int, ...] = ()


def start_new_run(home: Path, claimant: Claimant, candidates: Sequence[Candidate]) -> ClaimedRun:
    """Return a locked directory for a new run.

    ``home`` is used if it contains no run. Without a supervisor, the directory of an earlier run of the same invocation
    is renamed first.

    Raises:
        OSError: If the directory cannot be created or written.

    """
    first = next(candidate for candidate in candidates if candidate.directory.path == home)
    may_be_archived = (
        first.belongs_to(claimant.invocation)
        and not claimant.supervised
        and not any(candidate.is_alive for candidate in candidates)
    )
    if not (first.is_unused or may_be_archived):
        return add_run(home, claimant, candidates)
    try:
        first.lock()
    except RunIsAliveError:
        return add_run(home, claimant, candidates)
    if not first.history.events:
        return ClaimedRun(first.directory, first.history, continuing=False)
    try:
        return _replace_run(home, first)
    except RunIsAliveError:  # of a supervisor, or of a process that was faster
        return add_run(home, claimant, read_candidates(home))


def add_run(home: Path, claimant: Claimant, candidates: Sequence[Candidate]) -> ClaimedRun:
    """Return a new locked run directory below ``home``.

    Raises:
        OSError: If the directory cannot be created or written.

    """
    name = claimant.invocation.name
    for number in itertools.count(1):
        path = home / RUNS / (name if number == 1 else f"{name}-{number}")
        if path.exists():
            continue
        directory = RunDirectory(path)
        with suppress(RunIsAliveError):
            directory.lock("run")
            break
    directory.record["index"] = len(candidates)
    reason = _why_not_shared(home, claimant, candidates)
    line = f"{reason}; this training uses its own run directory: {path}."
    return ClaimedRun(directory, RunHistory(), continuing=False, messages=(line,))


def _why_not_shared(home: Path, claimant: Claimant, candidates: Sequence[Candidate]) -> str:
    first = candidates[0]
    others = [one for one in candidates if one.belongs_to(claimant.invocation) and not claimant.is_done(one)]
    if others and not others[0].is_alive:
        difference = claimant.describe_difference(others[0])
        return f"The run in {others[0].directory.path} belongs to another training ({difference})"
    if first.belongs_to(claimant.invocation) and first.is_alive:
        return first.directory.describe_owner("run").partition(". ")[0]
    return f"The run in {home} belongs to another training"


def _replace_run(home: Path, first: Candidate) -> ClaimedRun:
    """Rename the directory of an earlier run and return a new one in its place."""
    last = first.history.state
    try:
        archive = first.directory.move_away()
    finally:
        first.directory.unlock()
    directory = RunDirectory(home)
    directory.lock("run")
    messages: tuple[str, ...] = ()
    if isinstance(last, Finished):
        messages = (f"The run in {home} had finished. It was moved to {archive}, and a new run starts.",)
    elif last is not None:
        end = (
            "was interrupted"
            if isinstance(last, Interrupted)
            else "failed"
            if isinstance(last, Failed)
            else "was killed"
        )
        messages = (
            f"The run in {home} {end} at step {last.global_step or 0}. It was moved to {archive}, and a new run "
            "starts. To continue the old run instead, start the script with "
            f"`LIGHTNING_GREEN_RESUME=1 LIGHTNING_GREEN_RUN_DIR={archive}` or under `lightning-green run --run-dir "
            f"{archive}`.",
        )
    return ClaimedRun(directory, RunHistory(), continuing=False, messages=messages)
