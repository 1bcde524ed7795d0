"""A case of several ranks is exact only if it was stopped, saved, continued from that state, and has equal results."""

import sys

import pytest

from lightning_green.run.save_limits import EPOCHS_ONLY, METERED_ONLY
from tests.helpers.processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import ranks
from zygote import Ended, Zygote

ENDS = {"exit": {"event": "paused"}, "SIGTERM": {"event": "interrupted"}, "SIGKILL": {"event": "failed"}, "raise": {}}
STARTED, PERIODIC = {"event": "started", "global_step": 0}, {"event": "checkpoint", "reason": "periodic"}
FINISHED = {"event": "finished", "global_step": 20}
EPOCHS, METERED = ({"event": "warning", "reason": f"{text}: why."} for text in (EPOCHS_ONLY, METERED_ONLY))


def ledger(*attempts):
    return [{"fit": 0, **event, "attempt": number} for number, one in enumerate(attempts, 1) for event in one]


def stopped(kind, step=7, continued=7, *more):
    """Return the ledger of a training that was saved at `step` and continued from step `continued`."""
    reason = kind if kind in ("exit", "SIGTERM") else "periodic"
    saved = [{**PERIODIC, "global_step": 3}, {**PERIODIC, "reason": reason, "global_step": step}]
    ended = [ENDS[kind]] if ENDS[kind] else []
    return ledger([STARTED, *more, *saved, *ended], [{**STARTED, "global_step": continued}, FINISHED])


def verdict(kind, events, difference="", was_stopped=True, codes=(0, 0), hung=False):
    case = ranks.Case("ddp", 2, f"{kind}@7:1")
    return ranks.verdict(case, [Ended([75, 0]), Ended(list(codes), hung)], was_stopped, events, difference)


@pytest.mark.parametrize("kind", ENDS)
def test_training_that_continued_from_the_state_of_its_stop_is_exact(kind):
    assert verdict(kind, stopped(kind)) == ("exact", "")


@pytest.mark.parametrize("kind", ENDS)
def test_training_that_was_never_stopped_fails(kind):
    never = ledger([STARTED, {**PERIODIC, "global_step": 3}, FINISHED])
    assert verdict(kind, never, was_stopped=False) == ("failed", "it was not stopped")


@pytest.mark.parametrize("kind", ENDS)
def test_training_that_began_from_scratch_after_its_stop_fails(kind):
    assert verdict(kind, stopped(kind, continued=0)) == ("failed", "saved at step 7, continued from step [0]")
    assert verdict(kind, stopped(kind)[:-2]) == ("failed", "saved at step 7, continued from step []")


@pytest.mark.parametrize("kind", ENDS)
def test_training_that_was_not_saved_at_its_stop_fails(kind):
    unsaved = [event for event in stopped(kind) if event["event"] != "checkpoint"]
    assert verdict(kind, unsaved)[0] == "failed"
    other = {"exit": "SIGTERM"}.get(kind, "exit")
    assert verdict(kind, stopped(other))[0] == "failed"


def test_training_that_ended_with_an_error_or_hung_fails():
    assert verdict("exit", stopped("exit"), codes=(0, 1)) == ("failed", "exit codes [[75, 0], [0, 1]]")
    assert verdict("exit", stopped("exit"), difference=None) == ("failed", "exit codes [[75, 0], [0, 0]]")
    assert verdict("exit", stopped("exit"), hung=True) == ("failed", "a start did not end within the time limit")


@pytest.mark.parametrize("message", [EPOCHS, METERED])
def test_message_before_the_stop_with_equal_results_is_reported(message):
    assert verdict("SIGTERM", stopped("SIGTERM", 10, 0, message)) == ("reported", message["reason"])


def test_message_after_the_stop_does_not_count():
    late = [*stopped("exit", continued=0), *ledger([], [METERED])]
    assert verdict("exit", late) == ("failed", "saved at step 7, continued from step [0]")


@pytest.mark.parametrize("message", [EPOCHS, METERED])
def test_other_results_are_silent_in_spite_of_a_message(message):
    events = stopped("exit", 7, 7, message)
    assert verdict("exit", events, "other weights") == ("silent", f"other weights {message['reason']}")


def test_reference_that_has_not_finished_fails_all_its_cases(tmp_path, monkeypatch):
    monkeypatch.setattr(ranks, "SCRIPT", tmp_path / "script.py")
    ranks.SCRIPT.write_text("raise ValueError('no such strategy')")
    with Zygote(preload=(), variables={}) as zygote:
        judge = ranks.Judge(tmp_path, zygote, keep=True)
        for kind in ENDS:
            found = judge.run(ranks.Case("ddp", 2, f"{kind}@7:1"))
            assert found == ("failed", "the reference has not finished: ValueError: no such strategy")
    assert judge.counts["failed"] == judge.counts["cases"] == 4
