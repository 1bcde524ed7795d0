import pytest

from lightning_green.check import CheckResult, Difference, Verdict
from lightning_green.check.result import inexact, undetermined
from lightning_green.run.pause_rule import PauseAt

RESULT = CheckResult(Verdict.EXACT, fits=1)
AFTER = "stopped before epoch 1"


@pytest.mark.parametrize(
    ("difference", "reason", "remedy"),
    [
        (
            Difference("batch 0 of epoch 1", AFTER, "samples"),
            "after it was stopped before epoch 1, the training differs first in the samples of batch 0 of epoch 1",
            "draw from the global generators",
        ),
        (
            Difference("batch 0 of epoch 1", AFTER, "loss", attributes=(("module.kl", "0.1", "0.0"),)),
            "after it was stopped before epoch 1, the training differs first in the output of the step of batch 0",
            "compute it from `current_epoch`",
        ),
        (
            Difference("batch 0 of epoch 1", AFTER, "loss", attributes=(("train_dataloader[0].dataset.n", "1", "0"),)),
            "the output of the step",
            "compute it from the index of the sample",
        ),
        (
            Difference("the start", AFTER, "not restored"),
            "stopped before epoch 1 was not resumed",
            "on_save_checkpoint",
        ),
        (Difference("the stop", AFTER, "not saved"), "the state could not be saved", "on_save_checkpoint"),
        (
            Difference("the start", AFTER, "failed", found="KeyError: 'x'."),
            "the process that resumed after it was stopped before epoch 1 failed: KeyError: 'x'",
            "fix the error",
        ),
    ],
)
def test_inexact_training_in_words(difference, reason, remedy):
    result = inexact(RESULT, difference)
    assert (result.verdict, result.fits, result.difference) == (Verdict.INEXACT, 1, difference)
    assert reason in result.reason
    assert not result.reason.endswith(".")
    assert remedy in result.remedy
    assert result.pause_rule.at is PauseAt.NEVER


@pytest.mark.parametrize(("seeded", "remedy"), [(True, "deterministic=True"), (False, "seed_everything")])
def test_undetermined_training_in_words(seeded, remedy):
    result = undetermined(RESULT, Difference("batch 0 of epoch 0", "", "samples"), seeded)
    assert result.reason == "two uninterrupted runs of the script differ: the samples of batch 0 of epoch 0"
    assert remedy in result.remedy
    assert result.pause_rule is None
