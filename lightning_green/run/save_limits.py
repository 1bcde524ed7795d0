"""Where the training state of a fit is saved, so that a resume is exact."""

from __future__ import annotations

from lightning_green.resume.training_state import ExactState, Point
from lightning_green.run.pause_rule import PauseAt, PauseRule

METERED_ONLY = "The run is metered, and neither paused nor saved"
"""Start of the message of a fit whose states are not written; a reason follows."""
EPOCHS_ONLY = "The run is saved, and exits, at the end of an epoch only"
"""Start of the message of a fit whose states are written between epochs only; a reason follows."""


class SaveLimits:
    """Whether the states of one fit are written after any batch, between epochs only, or not at all.

    Args:
        messages: Receives a line for the user whenever that changes.

    Attributes:
        can_save: Whether states are written.
        epochs_only: Whether they are written between epochs only.
        why_epochs_only: Why they are written between epochs only, or None.
        why_not_saved: Why none is written, or None.

    """

    def __init__(self, messages: list[str]) -> None:
        self.can_save = self.epochs_only = False
        self.why_epochs_only: str | None = None
        self.why_not_saved: str | None = None
        self._messages = messages

    def allow(self, point: Point) -> bool:
        """Return whether a state is written at a boundary."""
        return self.can_save and not (self.epochs_only and point == "batch")

    def apply(self, rule: PauseRule) -> str | None:
        """Apply a rule; return the message if it changes anything."""
        if not self.can_save or rule.at is PauseAt.BATCH or (rule.at is PauseAt.EPOCH and self.epochs_only):
            return None
        if rule.at is PauseAt.NEVER:
            return self.forbid(rule.reason)
        self.epochs_only, self.why_epochs_only = True, rule.reason
        line = f"{EPOCHS_ONLY}: {rule.reason}."
        self._messages.append(line)
        return line

    def forbid(self, why: str) -> str:
        """Write no state from now on, and return the message."""
        self.can_save, self.why_not_saved = False, why
        line = f"{METERED_ONLY}: {why}."
        self._messages.append(line)
        return line

    def describe_stop(self) -> str:
        """Return what becomes of the training state at a signal, in one sentence."""
        if not self.can_save:
            return "The training state is not saved."
        if self.epochs_only:
            return "The run continues from the last saved epoch."
        return "The training state will be saved."


def rule_of_loaders(exact: ExactState) -> PauseRule:
    """Return where a fit may be paused by what is known of its training loaders so far."""
    if exact.why_never_exact is not None:
        return PauseRule(PauseAt.NEVER, exact.why_never_exact)
    if exact.why_epochs_only is not None:
        return PauseRule(PauseAt.EPOCH, exact.why_epochs_only)
    return PauseRule()
