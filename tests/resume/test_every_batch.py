"""A training that was stopped after any batch ends like an uninterrupted one, for each of ``CASES``."""

from functools import cache

import pytest

from lightning_green.resume.checkpoints import list_checkpoints, load_checkpoint
from tests.helpers.resume_training import Case, attempt, differences, outcome, repeated

BATCHES = range(12)
CASES = {
    "plain": (Case(), BATCHES),
    "validation 4 times an epoch": (Case(samples=32, validate_every=0.25), range(16)),
    "validation twice an epoch": (Case(validate_every=0.5), BATCHES),
    "validation every 4 batches": (Case(validate_every=4), BATCHES),
    "accumulation": (Case(accumulate=3), BATCHES),
    "bf16": (Case(precision="bf16-mixed"), (2, 5, 8)),
    "fp16": (Case(precision="16-mixed"), (2, 5, 8)),
    "sampler that draws": (Case(data="sampler"), (2, 5, 8)),
    "batch sampler that draws": (Case(data="batch sampler"), (2, 5, 8)),
    "generator of the user's": (Case(data="generator"), (2, 5, 8)),
    "data module": (Case(data="module"), (2, 5, 8)),
    "two loaders, the short one cycled": (Case(data="max_size_cycle"), (1, 2, 4, 5, 8)),
    "two loaders, the longer one cut": (Case(data="min_size"), (1, 2, 4)),
    "two loaders, the shorter one missing": (Case(data="max_size"), (1, 2, 4, 5, 8)),
    "moving average": (Case(average="ema"), (2, 5, 8)),
    "mean of the weights": (Case(average="mean"), (2, 5, 8)),
    "plateau of a validation": (Case(schedule="plateau", epochs=3), (2, 5, 8, 11)),
    "plateau of a training mean": (Case(schedule="train plateau", epochs=3), (2, 5, 8, 11)),
    "manual optimization": (Case(manual=True), (2, 5, 8)),
    "sanity check": (Case(sanity=2), (2, 5)),
    "stochastic weight averaging": (Case(average="swa", epochs=3), (2, 5, 8, 11, 13, 16, 17)),
    "loader with a state of its own": (Case(data="stateful"), (2, 5, 8)),
    "the same without a length": (Case(data="length-less stateful"), (2, 5, 8)),
    "stream": (Case(data="stream"), (2, 5, 8)),
    "stream without a length": (Case(data="length-less stream"), (2, 5, 8)),
    "sampler without a length": (Case(data="length-less sampler"), (2, 5, 8)),
    "object that yields batches": (Case(data="iterable"), (2, 5, 8)),
    "workers": (Case(workers=2), (2, 5, 8)),
    "stream, workers": (Case(data="stream", workers=2), (2, 5)),
    "stream without a length, workers": (Case(data="length-less stream", workers=2), (2, 8)),
    "sampler without a length, workers": (Case(data="length-less sampler", workers=2), (2, 8)),
    "persistent workers": (Case(workers=2, persistent=True), (2, 5, 8)),
}
SLOW = {name for name, (case, _) in CASES.items() if case.workers}
CELLS = [
    pytest.param(name, batch, id=f"{name}-{batch}", marks=[pytest.mark.slow] if name in SLOW else [])
    for name, (_, batches) in CASES.items()
    for batch in batches
]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Return the outcome of a case that is never stopped; each is trained once."""

    @cache
    def of(name):
        folder = tmp_path_factory.mktemp("uninterrupted")
        assert attempt(folder, CASES[name][0]) is None
        return outcome(folder)

    return of


@pytest.mark.sampled
@pytest.mark.parametrize(("name", "batch"), CELLS)
def test_resume_after_a_stop_at_a_batch_is_exact(name, batch, uninterrupted, tmp_path):
    case, batches = CASES[name]
    stopped = attempt(tmp_path, case, f"int@batch:{batch}")
    if stopped is None:  # in the last optimizer step the training ends before it can be stopped
        assert batch > max(batches) - case.accumulate
    else:
        (stored,) = list_checkpoints(tmp_path / "run", 0)
        assert load_checkpoint(stored.path)["global_step"] == stored.global_step  # loads with weights_only=True
        assert attempt(tmp_path, case) is None
    assert differences(uninterrupted(name), outcome(tmp_path)) == []
    assert repeated(tmp_path) == 0


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    ("name", "batch"),
    [("plain", 0), ("plain", 3), ("plain", 8), ("plain", 5), ("validation twice an epoch", 2), ("accumulation", 3)],
)
def test_resume_after_sigterm_is_exact(name, batch, uninterrupted, tmp_path):
    """Also in the last batch of an epoch, where validation is due, and inside an accumulation window."""
    case = CASES[name][0]
    assert isinstance(attempt(tmp_path, case, f"term@batch:{batch}"), SystemExit)
    assert attempt(tmp_path, case) is None
    assert differences(uninterrupted(name), outcome(tmp_path)) == []
    assert repeated(tmp_path) == 0


@pytest.mark.parametrize("where", ["train start:0", "epoch start:1", "batch start:7", "validation:1", "epoch end:0"])
def test_resume_after_a_stop_in_another_hook_is_exact(where, uninterrupted, tmp_path):
    case = CASES["plain"][0]
    assert attempt(tmp_path, case, f"int@{where}") is not None
    assert attempt(tmp_path, case) is None
    assert differences(uninterrupted("plain"), outcome(tmp_path)) == []
    assert repeated(tmp_path) == 0


@pytest.mark.parametrize("where", ["batch:1", "batch:6", "batch start:7", "validation:1", "epoch end:0"])
def test_error_loses_the_batches_after_the_last_periodic_checkpoint(where, tmp_path):
    case = Case(save_every="2m")  # of the simulated clock, on which a batch takes a minute
    assert attempt(tmp_path / "whole", case) is None
    assert isinstance(attempt(tmp_path / "parts", case, f"error@{where}"), RuntimeError)
    assert attempt(tmp_path / "parts", case) is None
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "parts")) == []
    assert repeated(tmp_path / "parts") <= 2


def test_resume_after_a_stop_at_every_batch_is_exact(uninterrupted, tmp_path):
    case = CASES["plain"][0]
    for batch in range(11):
        assert attempt(tmp_path, case, f"int@batch:{batch}") is not None
    assert attempt(tmp_path, case) is None
    assert differences(uninterrupted("plain"), outcome(tmp_path)) == []
    assert repeated(tmp_path) == 0
