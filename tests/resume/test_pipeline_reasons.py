"""Changes that no state restores are named."""

import itertools

import pytest
import torch

from lightning_green.resume import pipeline_values
from lightning_green.resume.pipeline_reasons import why_lost
from lightning_green.resume.pipeline_state import PipelineState
from tests.helpers.keeper import Keeper, Sample, count


def opened(one):
    one.file = open(__file__)  # noqa: SIM115


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (lambda one: setattr(one, "iterator", itertools.cycle([1])), "iterator"),
        (lambda one: setattr(one, "stream", (index for index in range(3))), "stream"),
        (lambda one: one.items.append(Sample()), "items"),
        (lambda one: setattr(one, "helper", Sample()), "helper"),
        (opened, "file"),
    ],
)
def test_change_that_cannot_be_saved_is_named(change, path):
    one = Keeper(count, items=[])
    state = PipelineState(one)
    state.capture()
    assert why_lost(state) is None
    change(one)
    state.capture()
    assert f"has changed `{path}`, which" in why_lost(state)


def test_large_values_are_not_saved(monkeypatch):
    monkeypatch.setattr(pipeline_values, "_MAX_BYTES", 100)
    one = Keeper(count, cache={})
    state = PipelineState(one)
    one.cache[0] = torch.ones(100)
    assert "cache" not in str(state.capture())
    assert "has changed `cache`, which cannot be saved" in why_lost(state)


def test_handles_that_are_opened_at_first_use_are_ignored():
    one = Keeper(count, handle=None)
    state = PipelineState(one)
    one.handle = memoryview(b"")  # an object without attributes, as those of databases and image files
    state.capture()
    assert why_lost(state) is None
