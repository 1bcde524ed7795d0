"""State that worker processes have for themselves is observed in them."""

import random

import pytest
import torch

from lightning_green.resume.worker_state import Observed, WorkerObserver


class Data:
    """A dataset of a worker."""

    def __init__(self):
        self.cache, self.calls, self.generator, self.handle = [None] * 4, 0, random.Random(1), None


def fill(data):
    data.cache[1] = torch.ones(2)


def fill_at_random(data):
    data.cache[1] = torch.randn(2)


def count(data):
    data.calls += 1


def draw(data):
    data.generator.random()


def create(data):
    data.other = random.Random(2)


def open_handle(data):
    data.handle = memoryview(b"")


@pytest.mark.parametrize(
    ("use", "found"),
    [
        (fill, ""),
        (open_handle, ""),
        (fill_at_random, "`cache`"),
        (count, "`calls`"),
        (draw, "`generator`, a random generator"),
        (create, "`other`, a random generator"),
    ],
)
def test_changes_that_a_resume_would_lose_are_observed(use, found):
    observed, data = Observed(), Data()
    observer = WorkerObserver(observed)
    for _ in range(3):
        with observer.observing(data, None):
            use(data)
    assert observed.text() == found


def test_changes_of_later_batches_are_observed():
    observed, data = Observed(), Data()
    observer = WorkerObserver(observed)
    for number in range(1, 9):
        with observer.observing(data, None):
            if number == 7:
                data.calls = 1
    assert observed.text() == "`calls`"


def test_dataset_that_cannot_be_compared_is_reported_and_loading_goes_on(monkeypatch):
    def fail(*_, **__):
        raise OSError("the file is closed")

    monkeypatch.setattr("lightning_green.resume.pipeline_state.PipelineState.first_change", fail)
    observed, data, used = Observed(), Data(), []
    with WorkerObserver(observed).observing(data, None):
        used.append(data)
    assert used == [data]
    assert observed.text() == "the dataset, which cannot be compared (OSError('the file is closed'))"
