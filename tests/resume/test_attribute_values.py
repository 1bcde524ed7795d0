import collections
import random

import numpy as np
import pytest
import torch

from lightning_green.resume.attribute_values import (
    as_text,
    assign,
    fingerprint,
    from_portable,
    tensors_in,
    to_portable,
)
from lightning_green.resume.plain_data import NotPlainError


def appended(values):
    values.append(1)


def drawn(generator):
    generator.random()


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (list, appended),
        (lambda: {"a": [1, 2]}, lambda value: appended(value["a"])),
        (lambda: {1, 2}, lambda value: value.add(3)),
        (lambda: collections.deque([1], 4), appended),
        (lambda: torch.zeros(3), lambda value: value.add_(1)),
        (lambda: np.zeros(3), lambda value: value.fill(1)),
        (lambda: random.Random(0), drawn),
        (lambda: np.random.default_rng(0), drawn),
        (lambda: torch.Generator().manual_seed(0), lambda value: torch.rand(1, generator=value)),
    ],
)
def test_fingerprint_changes_with_the_value_only(make, change):
    value = make()
    before = fingerprint(value)
    assert fingerprint(value) == before
    change(value)
    assert fingerprint(value) != before


def test_numbers_of_different_types_differ():
    assert len({fingerprint(value) for value in (1, 1.0, True, "1", np.float32(1), np.float64(1))}) == 6


def test_end_of_a_long_container_is_compared():
    values = list(range(100_000))
    before = fingerprint(values)
    values[-1] = -1
    assert fingerprint(values) != before


def test_container_in_itself_ends():
    values = []
    values.append(values)
    assert isinstance(fingerprint(values), int)
    assert list(tensors_in(values)) == []


def test_tensors_are_copied_and_return_to_their_devices():
    value = {"a": [torch.ones(2), (torch.zeros(1), 3)], "b": collections.deque([torch.ones(1)], maxlen=5)}
    item = to_portable(value)
    assert item["moved"] == [False, False, False]
    value["a"][0].add_(1)
    restored = from_portable(item, torch.device("meta"))
    assert torch.equal(restored["a"][0], torch.ones(2))
    assert restored["b"].maxlen == 5
    assert {tensor.device.type for tensor in tensors_in(restored)} == {"cpu"}
    elsewhere = from_portable({**item, "moved": [True, False, False]}, torch.device("meta"))
    assert [tensor.device.type for tensor in tensors_in(elsewhere)] == ["meta", "cpu", "cpu"]


def test_what_cannot_be_saved_raises():
    with pytest.raises(NotPlainError):
        to_portable([open])
    with pytest.raises(NotPlainError, match="tensors in a container of another kind"):
        to_portable({torch.ones(1)})


@pytest.mark.parametrize(
    ("current", "saved"),
    [
        (torch.zeros(2), torch.ones(2)),
        (np.zeros(2), np.ones(2)),
        ([1, 2], [3]),
        ([torch.zeros(2)], [torch.ones(2)]),
        ({"a": 1}, {"b": 2}),
        ({1}, {2, 3}),
        (collections.deque([1]), collections.deque([2, 3])),
        (random.Random(0), random.Random(1)),
    ],
)
def test_values_are_set_in_place(current, saved):
    alias = current
    assert assign(current, saved) is alias
    assert fingerprint(_plain(alias)) == fingerprint(_plain(saved))


def _plain(value):
    """Return a value with lists in place of tensors, whose fingerprints are those of objects."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("current", "saved"),
    [
        (1, 2),
        ([1], (1,)),
        (torch.zeros(2), torch.ones(3)),
        (torch.zeros(1).expand(2), torch.ones(2)),
        (np.broadcast_to(np.zeros(1), 2), np.ones(2)),
    ],
)
def test_values_that_cannot_be_set_in_place_are_replaced(current, saved):
    assert assign(current, saved) is saved


def test_elements_and_views_are_not_written_to():
    """They may be samples of a dataset, to which a buffer refers at this moment."""
    samples, arrays, records = torch.zeros(3, 2), np.zeros((3, 2)), [{"x": 0}, {"x": 1}]
    saved = [torch.ones(2), np.ones(2), {"x": 5}]
    buffer = [samples[0], arrays[0], records[0]]
    assert assign(buffer, saved) is buffer
    assert [one is other for one, other in zip(buffer, saved, strict=True)] == [True] * 3
    assert assign({"x": records[1]}, {"x": saved[2]}) == {"x": saved[2]}
    assert assign(samples[1], saved[0]) is saved[0]
    assert assign(arrays[1], saved[1]) is saved[1]
    assert (samples.sum(), arrays.sum(), records) == (0, 0, [{"x": 0}, {"x": 1}])


def test_text_of_values_contains_no_address():
    assert as_text({"a": (1, "x", [None, 2.5])}) == "dict('a', tuple(1, 'x', list(None, 2.5)))"
    assert as_text(torch.ones(3)) == "Tensor"
    assert as_text(list(range(5000))) == "list"
