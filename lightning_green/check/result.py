"""The result of a check, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from typing import Any

from lightning_green.check.differences import Difference
from lightning_green.run.pause_rule import PauseAt, PauseRule


class Verdict(str, Enum):
    """Where a script resumes exactly."""

    EXACT = "exact"
    EPOCHS = "exact_at_epochs"
    INEXACT = "inexact"
    NOT_SAVED = "not_saved"
    UNDETERMINED = "undetermined"


class CheckFailedError(RuntimeError):
    """A script cannot be checked; the message contains the reason."""


@dataclass(frozen=True)
class CheckResult:
    """Result of a check.

    Args:
        verdict: Where the script resumes exactly.
        reason: Why it is not exact everywhere, in one sentence without the final period; empty if it is.
        remedy: What to change in the script; empty if nothing.
        difference: The first difference that was found, or None.
        ignored: Metrics that differ between any two runs, such as a time, and were not compared.
        loggers: Classes of loggers that logged as usual, because the check cannot redirect them.
        linked: Files and directories of the working directory that were not copied; what the script writes there
            remains.
        left_out: Weights that were not copied because they are too large.
        files: Digests of the files of the script and of the files that the command names, as they were checked.
        trainings: Number of trainings that the command starts; the first one is stopped.
        fits: Number of fits that were checked.
        epochs: Epochs of the first fit.
        batches: Training batches of an epoch of the first fit.
        stops: The stops, for people.
        missed: Stops that the training did not reach.
        starts: Number of processes that were started.
        seconds: Duration of the check.

    """

    verdict: Verdict
    reason: str = ""
    remedy: str = ""
    difference: Difference | None = None
    ignored: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    trainings: int = 1
    fits: int = 0
    epochs: int = 0
    batches: int = 0
    stops: tuple[str, ...] = ()
    missed: tuple[str, ...] = ()
    starts: int = 0
    seconds: float = 0.0

    @property
    def pause_rule(self) -> PauseRule | None:
        """Where ``lightning-green run`` may pause the script; None if the check has not found out."""
        if self.verdict is Verdict.EXACT:
            return PauseRule() if self.trainings == 1 else None
        if self.verdict in (Verdict.EPOCHS, Verdict.INEXACT):
            return PauseRule(PauseAt.EPOCH if self.verdict is Verdict.EPOCHS else PauseAt.NEVER, self.reason)
        return None

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        rule = self.pause_rule
        return {
            **asdict(self),
            "verdict": self.verdict.value,
            "pause_at": None if rule is None else rule.at.value,
        }


def inexact(result: CheckResult, difference: Difference) -> CheckResult:
    """Return the result of a training that differs after it was resumed."""
    return replace(
        result,
        verdict=Verdict.INEXACT,
        reason=_reason(difference),
        remedy=_remedy(difference),
        difference=difference,
    )


def undetermined(result: CheckResult, difference: Difference | None, seeded: bool) -> CheckResult:
    """Return the result of a training that differs from itself; ``seeded`` is whether it calls ``seed_everything``."""
    what = "" if difference is None else f": {difference.describe()}"
    remedy = (
        "use deterministic algorithms, `Trainer(deterministic=True)`"
        if seeded
        else "call `seed_everything(..., workers=True)` before the model and the data are created"
    )
    reason = f"two uninterrupted runs of the script differ{what}"
    return replace(
        result, verdict=Verdict.UNDETERMINED, reason=reason, remedy=remedy, difference=difference, ignored=()
    )


def _reason(difference: Difference) -> str:
    if difference.what == "not restored":
        return f"a process that was {difference.after} was not resumed"
    if difference.what == "failed":
        return f"the process that resumed after it was {difference.after} failed: {difference.found.rstrip('.')}"
    if difference.what == "not saved":
        return f"the state could not be saved where it should have been {difference.after}"
    return f"after it was {difference.after}, the training differs first in {difference.describe()}"


def _remedy(difference: Difference) -> str:
    """Return what to change in the script, by what differed first."""
    if difference.what == "failed":
        return "fix the error; what a hook needs has to exist before the state is loaded"
    if difference.attributes:
        path = difference.attributes[0][0]
        if path.startswith(("train_dataloader", "datamodule")):
            return (
                "compute it from the index of the sample or the epoch, draw from the global generators, or give the "
                "loader `state_dict` and `load_state_dict`"
            )
        return (
            "compute it from `current_epoch` or `global_step`, or save it in `on_save_checkpoint` and set it in "
            "`on_load_checkpoint`"
        )
    return {
        "samples": "draw from the global generators of `torch`, `numpy` or `random` only, in the order of the batches",
        "random": "draw random numbers in hooks of the training only, not in threads or by the wall clock",
        "settings": "set it by a scheduler of `configure_optimizers`, or in every epoch by `current_epoch`",
    }.get(difference.what, "save what the step depends on in `on_save_checkpoint`, and set it in `on_load_checkpoint`")
