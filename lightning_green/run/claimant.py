"""The process that needs a run directory, and how existing runs compare with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing import parent_process

from lightning_green.ledger.run_directory import ATTEMPT_VARIABLE, SUPERVISED_VARIABLE
from lightning_green.resume.fingerprint import differences
from lightning_green.run.candidates import Candidate
from lightning_green.run.identity import Invocation, differing_variables, variables_set_since
from lightning_green.run.run import POOL, FitIdentity, shorten
from lightning_green.supervisor.launchers.torchelastic import TorchElasticLauncher
from lightning_green.utilities.processes import ProcessId


@dataclass(frozen=True)
class Claimant:
    """A process that needs a run directory.

    Args:
        invocation: Invocation of the training script.
        identity: First fit of the process.
        needs_state: Whether training states are saved and restored. A run that is only metered uses another directory
            instead of raising an error.
        supervised: Whether a supervisor has started the process.
        attempt: Attempt of the supervisor, ``<session>/<number>``, or None.
        variables: Digests of the variables that were set between the supervisor and this process; None if unknown.
        restarted: Whether a launcher has started the process again within the same attempt.
        script: Process that runs the script.
        spawned: Whether that process has started this one for a fit, with ``ddp_spawn`` or ``ddp_fork``.

    """

    invocation: Invocation
    identity: FitIdentity
    needs_state: bool = True
    supervised: bool = False
    attempt: str | None = None
    variables: Mapping[str, str] | None = None
    restarted: bool = False
    script: ProcessId = field(default_factory=lambda: ProcessId.of(os.getpid()))
    spawned: bool = False

    @classmethod
    def of_process(
        cls, invocation: Invocation, identity: FitIdentity, needs_state: bool, spawned: bool = False
    ) -> Claimant:
        """Return this process as a claimant."""
        supervisor = os.environ.get(SUPERVISED_VARIABLE, "")
        variables = variables_set_since(int(supervisor)) if supervisor.isdigit() else None
        attempt = os.environ.get(ATTEMPT_VARIABLE)
        restarted = TorchElasticLauncher(os.environ).has_restarted
        parent = parent_process() if spawned else None
        script = ProcessId.of(os.getpid() if parent is None or parent.pid is None else parent.pid)
        spawned = parent is not None
        return cls(invocation, identity, needs_state, bool(supervisor), attempt, variables, restarted, script, spawned)

    # -- the content of a run -----------------------------------------------------------------------------------------

    def trains_same(self, candidate: Candidate) -> bool:
        """Return whether a run has a fit of the same content as this process, or no recorded fit.

        Concurrent fits start in any order, so a run of threads may have been killed before this fit started.
        """
        fits = list(candidate.directory.record.get("fits", {}).values())
        if not fits or any(not self.identity.differences(fit) for fit in fits):
            return True
        mine, threads = self.identity.thread, {fit.get("thread") or "" for fit in fits}
        return bool(mine) and "" not in threads and (mine == POOL or mine not in threads)

    def starts_same(self, candidate: Candidate) -> bool:
        """Return whether a fit of a run started from the same weights."""
        fits = candidate.directory.record.get("fits", {}).values()
        return any(fit.get("weights") == self.identity.weights for fit in fits)

    def differing_variables(self, candidate: Candidate) -> list[str]:
        """Return the names of the environment variables that differ from those of a run."""
        return differing_variables(candidate.directory.record.get("environment"), self.variables)

    def describe_difference(self, candidate: Candidate) -> str:
        """Return the differences between a run and this process for messages."""
        recorded = {"invocation": candidate.directory.record.get("invocation", {})}
        found = differences(recorded, {"invocation": self.invocation.to_json()})
        found = found or self.identity.differences(candidate.directory.record.get("fits", {}).get("0", {}))
        return (
            shorten(found) if found else f"the environment variables {', '.join(self.differing_variables(candidate))}"
        )

    # -- the script of a run ------------------------------------------------------------------------------------------

    def shares_script(self, candidate: Candidate) -> bool:
        """Return whether a run was claimed by the same process of the script, or by one that it started for a fit."""
        claimed = candidate.directory.record.get("script_process", {})
        return claimed.get("process") == asdict(self.script) and candidate.belongs_to(self.invocation)

    # -- the supervisor of a run --------------------------------------------------------------------------------------

    def shares_attempt(self, candidate: Candidate) -> bool:
        """Return whether a run was claimed in the same attempt of the same supervisor."""
        return self.attempt is not None and candidate.directory.record.get("claimed_in") == self.attempt

    def shares_session(self, candidate: Candidate) -> bool:
        """Return whether a run was claimed under the same supervisor.

        The script cannot have been edited since, so a difference means that the run is another training.
        """
        claimed = candidate.directory.record.get("claimed_in")
        return self.attempt is not None and claimed is not None and _session(claimed) == _session(self.attempt)

    def is_done(self, candidate: Candidate) -> bool:
        """Return whether a run belongs to another process of the same attempt.

        A second process of the same content is another training, also if the first one has failed: a command such as
        ``for i in 1 2 3; do python train.py; done`` trains three times. The next attempt continues the first one.
        Only a launcher that restarts its workers, such as ``torchrun --max-restarts``, continues within an attempt.
        """
        return self.shares_attempt(candidate) and (candidate.is_finished or candidate.is_alive or not self.restarted)


def _session(attempt: str) -> str:
    return attempt.partition("/")[0]
