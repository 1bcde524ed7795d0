"""The runs of this process, and the fit that the callbacks of a Trainer share."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

from lightning_green._lightning.callbacks import allow_config_overwrite
from lightning_green._lightning.process import early_global_rank, is_spawned, send_to_script, stop_other_ranks
from lightning_green.ledger.history import RunHistory
from lightning_green.ledger.nodes import Node
from lightning_green.ledger.run_directory import (
    RUN_DIR_VARIABLE,
    RunDirectory,
    RunIsAliveError,
    keep_ranks_file_open,
    run_directories,
)
from lightning_green.resume.fingerprint import fit_fingerprint
from lightning_green.resume.module_state import weights_digest
from lightning_green.run import first_states
from lightning_green.run.claimant import Claimant
from lightning_green.run.claims import RunClaim, continues_by_request
from lightning_green.run.fit import Fit
from lightning_green.run.identity import Invocation
from lightning_green.run.options import RunOptions
from lightning_green.run.run import POOL, FitIdentity, OtherTrainingError, Run
from lightning_green.run.session import Session
from lightning_green.utilities.clock import Clock, SystemClock, clock_from_environment, clock_from_spec
from lightning_green.utilities.files import is_local_path

log = logging.getLogger(__name__)

_runs: dict[tuple[Path, str], Run] = {}
_claiming = threading.Lock()
_seen: weakref.WeakSet[pl.LightningModule] = weakref.WeakSet()
_of_workers: dict[Path, tuple[str, int]] = {}


def join_fit(
    trainer: pl.Trainer,
    callback: Any,
    options: Callable[[], RunOptions],
    needs_state: bool,
    communicating: Sequence[str] = (),
) -> Fit:
    """Return the fit of a callback. The first callback of a Trainer creates it.

    Args:
        trainer: The trainer, in ``fit``, before ``setup``.
        callback: The callback.
        options: Returns the combined options of all Lightning Green callbacks of this Trainer.
        needs_state: Whether one of these callbacks saves and restores the training state.
        communicating: Names of the callbacks that communicate with those of other ranks.

    Raises:
        ValueError: If the callbacks of this Trainer have conflicting arguments.
        RunIsAliveError: If the run to continue is already running in another process.
        OtherTrainingError: If the fit to continue is another training.

    """
    fit: Fit | None = getattr(trainer, "_lightning_green_fit", None)
    if fit is not None and not fit.closed and callback not in fit.members:
        fit.members.append(callback)
        return fit
    keep_ranks_file_open()
    wanted = options()
    clock = clock_from_environment() or wanted.clock or SystemClock()
    node = Node(trainer.node_rank, trainer.num_nodes, trainer.local_rank)
    messages: list[str] = []
    if early_global_rank(trainer) == 0:  # only rank 0 uses the run directory and decides
        module = trainer.lightning_module
        identity = FitIdentity(fit_fingerprint(trainer, module not in _seen), weights_digest(module), _thread())
        needs_state = needs_state and identity.thread != POOL
        try:
            run, messages = _own_run(trainer, clock, node, identity, needs_state)
            claimed = run.claim_fit(identity, needs_state)
        except (RunIsAliveError, OtherTrainingError):
            stop_other_ranks(trainer)  # they would wait for this rank until a timeout
            raise
        _seen.add(module)
        messages += claimed.messages
        session = Session(run, wanted, claimed.number, run.continuing and claimed.continuing)
    else:
        session = nonzero_rank_session(node, wanted, clock)
    if continues_by_request() or (session.continuing and trainer.world_size == 1):  # all ranks have to decide the same
        allow_config_overwrite(trainer)
    fit = Fit(session, trainer, messages, communicating)
    if _thread() == POOL:
        fit.why_not_exact = "it is trained in a thread pool, whose fits cannot be distinguished after a restart"
    else:
        fit.ending.thread = _thread()
    fit.members.append(callback)
    trainer._lightning_green_fit = fit  # type: ignore[attr-defined]
    fit.prepare_loggers()
    return fit


def _thread() -> str:
    """Return the name of this thread; empty for the main one, and ``POOL`` for those of a pool."""
    thread = threading.current_thread()
    if thread is threading.main_thread():
        return ""
    return POOL if thread.name.startswith(POOL) else thread.name


def _own_run(
    trainer: pl.Trainer, clock: Clock, node: Node, identity: FitIdentity, needs_state: bool
) -> tuple[Run, list[str]]:
    """Return the run of this process for a Trainer. It is claimed with the first fit."""
    invocation = Invocation.of_process(clock.is_simulated)
    home = run_home(trainer, invocation)
    with _claiming:
        run = _runs.get((home, clock.spec()))
        if run is not None and run.is_of_this_process:
            return run, []
        run, messages = open_run(home, clock, invocation, identity, needs_state, node, is_spawned(trainer))
        _runs[home, clock.spec()] = run
        if run.path is not None:
            send_to_script(trainer, _RunOfWorker(run.path, clock.spec(), run.attempt))
        if run.path is not None and not run.continuing:
            first_states.keep(run.path)
        return run, messages


def run_home(trainer: pl.Trainer, invocation: Invocation) -> Path:
    """Return the directory in which this process claims its run directory."""
    given = os.environ.get(RUN_DIR_VARIABLE)
    if given:
        return Path(given).absolute()
    root = trainer.default_root_dir  # a run directory needs locks, which need a disk
    local = Path(root).absolute() if is_local_path(root) else Path.cwd()
    return local / "lightning_green" / invocation.name


def close_current_run() -> None:
    """End the runs of this process so that new ones can start, for example in a notebook."""
    with _claiming:
        for run in _runs.values():
            run.end(cleanly=True)
        _runs.clear()
        _of_workers.clear()
        _seen.clear()


def open_run(
    home: Path,
    clock: Clock,
    invocation: Invocation | None = None,
    identity: FitIdentity | None = None,
    needs_state: bool = True,
    node: Node | None = None,
    spawned: bool = False,
) -> tuple[Run, list[str]]:
    """Claim a run in ``home``. The ledgers and the environment determine whether it is continued or new.

    Args:
        home: Directory given by the supervisor, the user or the Trainer.
        clock: The clock.
        invocation: Invocation of the script; None for that of this process.
        identity: First fit of this process.
        needs_state: Whether training states are saved and restored.
        node: The node of this process.
        spawned: Whether Lightning has started this process for one fit.

    Returns:
        The run, and messages for the user.

    Raises:
        RunIsAliveError: If the run to continue is already running in another process.
        OtherTrainingError: If the run to continue is another training.

    """
    invocation = Invocation.of_process(clock.is_simulated) if invocation is None else invocation
    claimant = Claimant.of_process(invocation, FitIdentity() if identity is None else identity, needs_state, spawned)
    try:
        claimed = RunClaim(home, claimant).acquire()
        if clock.is_simulated and not claimed.continuing:
            _advance_clock(clock, home, claimed.directory.path)
        clock.bind(claimed.directory.path)
        run = Run(claimed.directory, clock, claimed.history, claimed.continuing, node, claimed.attempt, claimed.claimed)
        return run, list(claimed.messages)
    except (RunIsAliveError, OtherTrainingError):
        raise
    except (OSError, ValueError) as error:  # ValueError: damaged `run.json`
        if needs_state and any(home.glob("**/checkpoints/*.ckpt")):
            raise  # do not train from scratch because of a disk error
        log.warning(
            "The run directory %s cannot be used (%s). Training continues without a ledger and without planned exits. "
            "Make the directory writable or set LIGHTNING_GREEN_RUN_DIR to another one.",
            home,
            (error.strerror if isinstance(error, OSError) else None) or error,
        )
        return Run(None, clock, RunHistory(), continuing=False, node=node), []


def _advance_clock(clock: Clock, home: Path, path: Path) -> None:
    """Advance a simulated clock to the end of the earlier runs of the same command."""
    for other in run_directories(home):
        if other != path and not RunDirectory(other).is_alive("run"):
            ended = clock_from_spec(clock.spec())
            ended.look(other)
            clock.go_to(ended.time())


def nonzero_rank_session(node: Node, options: RunOptions, clock: Clock) -> Session:
    """Return the session of a process other than rank 0.

    The first process of each further node measures energy on the time of rank 0. It writes a ledger after rank 0 has
    sent the run directory. All other processes neither measure nor write.
    """
    if node.rank == 0 or node.process > 0:
        return Session(Run(None, SystemClock(), node=node), RunOptions(meter=None))
    return Session(Run(None, clock, node=node), replace(options, grid=None, zone=None))


class _RunOfWorker:
    """A run that a process which Lightning started for one fit sends to the process of the script.

    A script ends in its own process, so that process records the end.
    """

    def __init__(self, path: Path, clock: str, attempt: int) -> None:
        self._arguments = str(path), clock, attempt

    def __reduce__(self) -> tuple[Any, ...]:
        return _remember, self._arguments


def _remember(path: str, clock: str, attempt: int) -> None:
    _of_workers[Path(path)] = clock, attempt


@atexit.register
def _at_exit() -> None:
    """End the runs of this process. After an exception, no end is recorded, as after a kill."""
    cleanly = getattr(sys, "last_value", None) is None
    for run in _runs.values():
        run.end(cleanly)
    own = {run.path for run in _runs.values()}
    for path, (clock, attempt) in _of_workers.items():
        if cleanly and path not in own:
            _end_run_of_workers(path, clock_from_spec(clock), attempt)


def _end_run_of_workers(path: Path, clock: Clock, attempt: int) -> None:
    """Record the end of a script whose fits Lightning has trained in processes of their own."""
    if not path.exists():
        return
    try:
        clock.bind(path)
        run = Run(RunDirectory(path), clock, attempt=attempt, claimed=[0])
        run.end(cleanly=True)
    except (OSError, RuntimeError, ValueError) as error:
        log.warning("The end of the script could not be recorded in %s: %s.", path, error)
