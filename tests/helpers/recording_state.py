"""A saved state that records what it is asked to do."""

from pathlib import Path
from types import SimpleNamespace

from lightning_green.run.save_limits import SaveLimits


class RecordingState:
    """Replaces ``SavedState``.

    Args:
        saves: Whether saving succeeds.
        calls: Receives the name and the arguments of each call.

    """

    has_checkpoint = False

    def __init__(self, saves=True, calls=None):
        self.limits, self.source = SaveLimits([]), SimpleNamespace(is_final=False)
        self.saves, self.calls = saves, [] if calls is None else calls

    def check_can_save(self, point):
        self.calls.append(("check", point))

    def save_if_due(self, point):
        self.calls.append(("save if due", point))

    def exits_at_epochs_only(self):
        return self.limits.epochs_only

    def save(self, point, reason):
        self.calls.append(("save", point, reason))
        return Path("fit0.ckpt") if self.saves else None

    def save_final(self):
        self.calls.append(("save final",))

    def dump(self, point, number):
        self.calls.append(("dump", point, number))
