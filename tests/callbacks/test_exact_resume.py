"""The callback that only resumes: what it refuses, how often it saves, and that it changes nothing."""

import inspect
import math
from datetime import timedelta

import pytest

from lightning_green import CarbonScheduler, ExactResume
from lightning_green.run.coordinator import close_current_run
from tests.callbacks.green_kit import BATCHES, clock, events, train
from tests.helpers.interrupted_fits import Interrupt

WRONG = [
    *[({"every": value}, '`every` should be a duration such as "36h", "90m"') for value in ("soon", "")],
    *[({"every": v}, '`every` should be a string such as "36h" or a timedelta, got') for v in (15, math.nan, True)],
    ({"every": timedelta(-1)}, "`every` should not be negative"),
    *[({"allow_inexact": value}, "`allow_inexact` should be True or False, got") for value in ("yes", 1, None)],
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_argument_raises_at_construction_and_says_what_to_pass(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        ExactResume(**arguments)


def test_every_argument_is_in_the_table_of_wrong_ones():
    assert set(inspect.signature(ExactResume).parameters) == {name for given, _ in WRONG for name in given}


def test_without_an_argument_it_saves_every_quarter_of_an_hour():
    assert ExactResume().every == timedelta(minutes=15)
    assert ExactResume(every=None).every is None
    assert ExactResume(every="1h30m").every == timedelta(hours=1.5)


@pytest.fixture
def simulated(monkeypatch):
    """Ten minutes a batch, handed over by the environment as the supervisor does."""
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", clock().spec())


@pytest.mark.usefixtures("simulated")
def test_the_weights_are_those_of_the_script_without_it(tmp_path):
    _, without = train(tmp_path / "without")
    trainer, weights = train(tmp_path / "with", ExactResume())
    assert weights == without
    assert trainer.global_step == BATCHES


@pytest.mark.usefixtures("simulated")
def test_stopped_and_continued_it_ends_with_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path / "parts", ExactResume(), Interrupt(5))
    close_current_run()
    (interrupted,) = events(tmp_path / "parts", "interrupted")
    assert interrupted["global_step"] == 6  # the batch was finished first
    trainer, weights = train(tmp_path / "parts", ExactResume())
    close_current_run()
    assert trainer.global_step == BATCHES
    assert weights == train(tmp_path / "without")[1]
    assert [record["event"] for record in events(tmp_path / "parts")[-2:]] == ["finished", "ended"]


@pytest.mark.usefixtures("simulated")
@pytest.mark.parametrize(
    ("callbacks", "steps"),
    [
        ([ExactResume(every="1h")], [6, 12, 18]),
        ([ExactResume(every=None)], []),
        ([ExactResume(every="2h"), CarbonScheduler(checkpoint_every="1h")], [6, 12, 18]),
        ([CarbonScheduler(checkpoint_every="2h"), ExactResume(every="1h")], [6, 12, 18]),
        ([ExactResume(every="1h"), CarbonScheduler(checkpoint_every="2h")], [6, 12, 18]),
        ([CarbonScheduler(checkpoint_every="2h"), ExactResume(every=None)], [12]),
    ],
    ids=[
        "every hour",
        "never",
        "the shorter of two",
        "the other way round",
        "the shorter one first",
        "the only one of two",
    ],
)
def test_how_often_it_saves(tmp_path, callbacks, steps):
    train(tmp_path, *callbacks)
    saved = events(tmp_path, "checkpoint")
    assert [record["global_step"] for record in saved] == steps
    assert {record["reason"] for record in saved} <= {"periodic"}


@pytest.mark.usefixtures("simulated")
def test_without_checkpointing_nothing_is_saved(tmp_path):
    train(tmp_path, ExactResume(every="1h"), enable_checkpointing=False)
    assert list(tmp_path.rglob("*.ckpt")) == []
    assert events(tmp_path)[-1]["event"] == "finished"
