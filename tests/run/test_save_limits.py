from types import SimpleNamespace

import pytest

from lightning_green.run.pause_rule import PauseAt, PauseRule
from lightning_green.run.save_limits import SaveLimits, rule_of_loaders

EPOCH, NEVER = PauseRule(PauseAt.EPOCH, "a counter"), PauseRule(PauseAt.NEVER, "a thread")


def limits(can_save=True):
    messages = []
    made = SaveLimits(messages)
    made.can_save = can_save
    return made, messages


def allowed(made):
    return [point for point in ("batch", "epoch") if made.allow(point)]


@pytest.mark.parametrize(
    ("rules", "points", "stop"),
    [
        ([PauseRule()], ["batch", "epoch"], "will be saved"),
        ([EPOCH], ["epoch"], "from the last saved epoch"),
        ([NEVER], [], "is not saved"),
        ([EPOCH, NEVER], [], "is not saved"),
        ([NEVER, EPOCH], [], "is not saved"),
    ],
)
def test_strictest_rule_counts(rules, points, stop):
    made, _ = limits()
    for rule in rules:
        made.apply(rule)
    assert allowed(made) == points
    assert stop in made.describe_stop()


def test_each_change_is_one_message():
    made, messages = limits()
    assert made.apply(PauseRule()) is None
    assert made.apply(EPOCH) == "The run is saved, and exits, at the end of an epoch only: a counter."
    assert made.apply(EPOCH) is None
    assert made.apply(NEVER) == "The run is metered, and neither paused nor saved: a thread."
    assert made.apply(NEVER) is None
    assert len(messages) == 2
    assert made.why_not_saved == "a thread"


def test_fit_that_saves_nothing_has_no_rule():
    made, messages = limits(can_save=False)
    assert made.apply(NEVER) is None
    assert (allowed(made), messages, made.why_not_saved) == ([], [], None)


@pytest.mark.parametrize(
    ("never", "epochs", "at"),
    [(None, None, PauseAt.BATCH), (None, "a", PauseAt.EPOCH), ("b", "a", PauseAt.NEVER), ("b", None, PauseAt.NEVER)],
)
def test_rule_of_loaders(never, epochs, at):
    assert rule_of_loaders(SimpleNamespace(why_never_exact=never, why_epochs_only=epochs)).at is at
