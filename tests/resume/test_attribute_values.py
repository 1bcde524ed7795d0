import collections
import copy
import random
import types
import weakref

import numpy as np
import pytest
import torch

from lightning_green.resume.attribute_values import (
    as_text,
    assign,
    assign_same,
    fingerprint,
    from_portable,
    identity,
    same_elements,
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


@pytest.mark.parametrize("make", [lambda n: torch.full((4,), float(n)), lambda n: [n], lambda n: {"n": n}])
def test_another_object_at_the_same_address_is_not_the_same(make):
    owner = types.SimpleNamespace(value=make(0))
    before, which = fingerprint(owner.value), identity([owner.value])
    for number in range(1, 100):
        owner.value = make(number)  # the address of one that is gone, now and then
        assert fingerprint(owner.value) != before
        values = [owner.value]
        assert same_elements(values, which) is None
        assert same_elements(values, identity(values)) == [0]
        assert same_elements(owner.value, which) is None


def test_values_that_are_compared_are_not_kept_alive():
    tensor, value = torch.zeros(2), [torch.zeros(2)]
    which, of_list, gone = identity(tensor), identity(value), [weakref.ref(tensor), weakref.ref(value[0])]
    fingerprint(tensor)
    del tensor
    assert gone[0]() is None
    assert same_elements(torch.zeros(2), which) is None
    value = []
    assert same_elements(value, of_list) is None
    assert gone[1]() is None


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


@pytest.mark.parametrize(("first", "second"), [([-1, 0], [-2, 0]), ({"a": -1}, {"a": -2}), ([1, "a"], [1.0, "a"])])
def test_values_with_equal_hashes_differ(first, second):
    assert fingerprint(first) != fingerprint(second)


@pytest.mark.parametrize("value", [7, -2, 0.5, 2**70])
def test_one_changed_number_of_a_long_list_is_noticed(value):
    numbers = [type(value)(-1)] * 5000
    before = fingerprint(numbers)
    numbers[1234 if value != 2**70 else 0] = value
    assert fingerprint(numbers) != before


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


def assigned(make, change):
    """Change a value in one process, and return what another process sets, and the value that it has created."""
    value, other = make(), make()
    before, created = identity(value), identity(other)
    changed = change(value)
    value = value if changed is None else changed
    return assign_same(other, copy.deepcopy(value), same_elements(value, before), created), other


def test_elements_that_were_changed_in_place_stay_the_same():
    def change(outer):
        outer["a"].append(1)
        outer["b"].add_(1)
        outer["c"] = [5]

    found, created = assigned(lambda: {"a": [0], "b": torch.zeros(3, 2)[0], "c": [0]}, change)
    assert found is created
    assert (found["a"], found["b"].tolist(), found["c"]) == ([0, 1], [1, 1], [5])


@pytest.mark.parametrize("number", [0, 1])
def test_samples_to_which_a_value_refers_are_not_written_to(number):
    """A buffer refers to other samples of a dataset after a while, and an attribute to another one."""
    samples, arrays, records = torch.zeros(3, 2), np.zeros((3, 2)), [{"x": 0}, {"x": 1}]

    def change(buffer):
        buffer[:] = [torch.ones(2), np.ones(2), {"x": 5}]

    found, created = assigned(lambda: [samples[number], arrays[number], records[number]], change)
    assert found is created
    assert (found[0].tolist(), found[1].tolist(), found[2]) == ([1, 1], [1, 1], {"x": 5})
    for current in (samples[0], arrays[0], records[0]):
        assert assigned(lambda one=current: one, lambda value: copy.deepcopy(value))[0] is not current
    assert (samples.sum(), arrays.sum(), records) == (0, 0, [{"x": 0}, {"x": 1}])


def test_views_that_two_objects_share_stay_shared():
    weights = np.arange(6.0).reshape(2, 3)
    value, before = weights, identity(weights)
    weights += 1
    other = np.arange(6.0).reshape(2, 3)
    assert assign_same(other, weights.copy(), same_elements(value, before), identity(other)) is other
    assert other.tolist() == weights.tolist()


def test_text_of_values_contains_no_address():
    assert as_text({"a": (1, "x", [None, 2.5])}) == "dict('a', tuple(1, 'x', list(None, 2.5)))"
    assert as_text(torch.ones(3)) == "Tensor"
    assert as_text(list(range(5000))) == "list"
