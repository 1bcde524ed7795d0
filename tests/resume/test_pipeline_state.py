"""State that datasets, transforms, samplers and functions keep is restored in another process, or reported."""

import collections
import functools
import multiprocessing
import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, WeightedRandomSampler

from lightning_green.resume.load_check import check_loads
from lightning_green.resume.object_walk import walk
from lightning_green.resume.pipeline_state import Created, PipelineState
from lightning_green.resume.plain_data import from_plain, to_plain
from tests.helpers.keeper import Keeper, Sample, count

FILE = {"generator": None, "count": 0}
GENERATOR = random.Random(1)


def draw_lazily(one):
    if one.generator is None:
        one.generator = np.random.default_rng(1)
        one.transforms = [one.generator]
    return one.generator.random() + one.transforms[0].random()


def add(name, value):
    def use(one):
        getattr(one, name).append(value)
        return len(getattr(one, name))

    return use


def shuffle(one):
    random.Random(len(one.items)).shuffle(one.items)
    return list(one.items)


def cache(one):
    key = len(one.cache)
    one.cache[key] = torch.full((2,), float(key))
    return sum(float(value.sum()) for value in one.cache.values())


def scale(one):
    one.weights.mul_(2)
    return one.weights.tolist()


def replace(one):
    one.weights = one.weights + 1
    return one.weights.tolist()


def count_shared(one):
    one.shared.value += 1
    one.array[0] += one.shared.value
    return one.shared.value + one.array[0]


class OfClass:
    """An object whose state belongs to its class."""

    calls = 0
    generator = random.Random(2)

    def __call__(self):
        type(self).calls += 1
        return self.calls + self.generator.random()


class OfFile:
    """An object whose state is a variable of this file."""

    def __call__(self):
        FILE["count"] += 1
        return FILE["count"] + GENERATOR.random()


def of_class():
    OfClass.calls = 0
    OfClass.generator.seed(2)
    return OfClass()


def of_file():
    FILE["count"] = 0
    GENERATOR.seed(1)
    return OfFile()


def closure():
    generator, total = np.random.default_rng(3), 0

    def use():
        nonlocal total
        total += 1
        return total + generator.random()

    return use


def partial():
    return functools.partial(np.random.Generator.random, np.random.default_rng(4))


def bound_method():
    return Keeper(lambda one: one.generator.random(), generator=np.random.default_rng(5)).__call__


@dataclass(slots=True)
class InSlots:
    """A transform whose attributes are in slots."""

    generator: np.random.Generator
    calls: int = 0

    def __call__(self):
        self.calls += 1
        return self.calls + self.generator.random()


class ListWithGenerator(list):
    """A dataset that is a list, and has attributes."""

    def __init__(self):
        super().__init__([1.0, 2.0])
        self.generator, self.calls = np.random.default_rng(6), 0

    def __call__(self):
        self.calls += 1
        return self[0] + self.calls + self.generator.random()


class RunningMean(nn.Module):
    """A transform that is a module, and no part of a model."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(2))

    def forward(self):
        self.mean += 1
        return self.mean.tolist()


class Slot:
    """A key without a value of its own: its text contains an address."""


def by_object():
    slot = Slot()
    return Keeper(lambda one: one.generators[one.slot].random(), slot=slot, generators={slot: np.random.default_rng(7)})


def add_to_argument(values):
    values.append(len(values))
    return list(values)


def count_by_kind(one):
    one.seen[len(one.seen) % 2] += 1
    one.groups[len(one.groups) % 2].append(1)
    return sorted(one.seen.items()), sorted(one.groups.items())


STATES = {
    "slots": lambda: InSlots(np.random.default_rng(8)),
    "list with attributes": ListWithGenerator,
    "module": RunningMean,
    "keys that are objects": by_object,
    "argument of a partial": lambda: functools.partial(add_to_argument, [0]),
    "counter": lambda: Keeper(count_by_kind, seen=collections.Counter(), groups=collections.defaultdict(list)),
    "generator at first use": lambda: Keeper(draw_lazily, generator=None),
    "list": lambda: Keeper(add("items", 1), items=[]),
    "deque": lambda: Keeper(add("items", 1), items=collections.deque(maxlen=9)),
    "indices shuffled in place": lambda: Keeper(shuffle, items=list(range(20))),
    "cache": lambda: Keeper(cache, cache={}),
    "tensor in place": lambda: Keeper(scale, weights=torch.ones(3)),
    "tensor replaced": lambda: Keeper(replace, weights=torch.ones(3)),
    "array": lambda: Keeper(lambda one: one.array.__iadd__(1).tolist(), array=np.zeros(3)),
    "count": lambda: Keeper(count),
    "shared memory": lambda: Keeper(
        count_shared, shared=multiprocessing.Value("i", 0), array=multiprocessing.Array("i", 2)
    ),
    "class": of_class,
    "file": of_file,
    "closure": closure,
    "partial": partial,
    "bound method": bound_method,
}


@pytest.mark.parametrize("kind", STATES)
def test_state_is_restored_in_another_process(kind):
    one = STATES[kind]()
    state = PipelineState(one)
    for _ in range(2):
        one()
    saved = to_plain(state.capture())
    check_loads(saved)
    expected = [one() for _ in range(3)]
    assert state.lost == {}
    other = STATES[kind]()
    PipelineState(other).restore(from_plain(saved))
    assert [other() for _ in range(3)] == expected


@pytest.mark.parametrize("mode", ["r", "rb"])
def test_position_of_an_open_file_is_restored(mode, tmp_path):
    path = tmp_path / "lines.txt"
    path.write_text("one\ntwo\nthree\n")
    with open(path, mode) as file, open(path, mode) as other:
        one = Keeper(lambda one: one.file.readline(), file=file)
        state = PipelineState(one)
        one()
        saved = from_plain(to_plain(state.capture()))
        again = Keeper(one.use.func, file=other)
        PipelineState(again).restore(saved)
        assert again() == one()


def test_earlier_state_replaces_a_later_one():
    one = Keeper(count)
    state = PipelineState(one)
    began = state.capture()
    one()
    now = state.capture()
    other = Keeper(count)
    resumed = PipelineState(other)
    resumed.restore(now)
    resumed.restore(began)
    assert not hasattr(other, "count")
    resumed.restore(now)
    assert other.count == 1


def test_another_value_of_the_script_is_kept():
    one = Keeper(count, size=4)
    state = PipelineState(one)
    one.size = 5
    other = Keeper(count, size=8)
    PipelineState(other).restore(state.capture())
    assert other.size == 8


def test_generators_are_set_in_place():
    generator = np.random.default_rng(1)
    one = Keeper(count, first=generator, items=[generator])
    state = PipelineState(one)
    generator.random()
    saved = from_plain(to_plain(state.capture()))
    other_generator = np.random.default_rng(1)
    other = Keeper(count, first=other_generator, items=[other_generator])
    PipelineState(other).restore(saved)
    assert other.first is other_generator is other.items[0]
    assert other_generator.random() == generator.random()


def test_weights_of_a_sampler_keep_the_tensor():
    sampler = WeightedRandomSampler(torch.ones(4), 4)
    state = PipelineState(sampler)
    sampler.weights[1] = 5
    other = WeightedRandomSampler(torch.ones(4), 4)
    weights = other.weights
    PipelineState(other).restore(state.capture())
    assert other.weights is weights
    assert weights.tolist() == [1, 5, 1, 1]


def test_values_at_the_creation_are_those_that_the_first_loader_of_an_object_found():
    created, one = Created(), Keeper(count)
    PipelineState([one], created=created)
    one()
    assert PipelineState(one, created=created).capture()["values"]["0"]["count"]["value"] == 1


def test_datasets_and_weights_are_not_entered():
    class Data(Dataset):
        """A dataset."""

    sampler, data, net = Keeper(count), Data(), nn.Linear(2, 2)
    data.generator, sampler.data, sampler.net = random.Random(1), data, net
    state = PipelineState(sampler, with_datasets=False)
    assert state.generators() == {}
    with torch.no_grad():
        net.weight += 1
    assert state.capture()["values"] == {}


def test_walk_ends_in_cycles_and_large_containers():
    one = Keeper(count, big=[Sample()] * 2000)
    one.itself = one
    assert sum(isinstance(value, Sample) for _, value, _ in walk(one)) == 0


class Current(Dataset):
    """Refers to one of its samples."""

    def __init__(self):
        self.samples = [torch.full((2,), float(number)) for number in range(3)]
        self.records = [{"x": number} for number in range(3)]
        self.move(0)

    def move(self, number):
        self.tensor, self.record = self.samples[number], self.records[number]


@pytest.mark.parametrize("moved", [0, 2])
def test_samples_to_which_an_attribute_refers_are_not_changed(moved):
    """Neither in another process nor when a pass is read again in this one."""
    first, second = Current(), Current()
    state, other = PipelineState(first), PipelineState(second)
    began = state.capture()
    first.move(1)
    saved = from_plain(to_plain(state.capture()))
    second.move(moved)
    other.restore(saved)
    assert (second.tensor.tolist(), second.record) == ([1, 1], {"x": 1})
    other.restore(began)
    assert (second.tensor.tolist(), second.record) == ([moved, moved], {"x": moved})
    for one in (first, second):
        assert [sample.tolist() for sample in one.samples] == [[0, 0], [1, 1], [2, 2]]
        assert one.records == [{"x": 0}, {"x": 1}, {"x": 2}]


def test_samples_that_replace_those_of_a_buffer_are_not_written_to():
    samples = torch.arange(400.0).reshape(100, 4)

    def make(data):
        return Keeper(len, last=data[0], buffer=[data[number] for number in range(5)])

    one = make(samples)
    state = PipelineState(one)
    for number in range(100):
        one.last = one.buffer[number % 5] = samples[number]
        data = samples.clone()
        other = make(data)
        PipelineState(other).restore(from_plain(to_plain(state.capture())))
        assert torch.equal(data, samples)
        assert torch.equal(other.last, samples[number])
        assert torch.equal(other.buffer[number % 5], samples[number])


def test_iterator_at_the_address_of_one_that_is_gone_is_saved():
    one = Keeper(len, iterator=iter([0]))
    state = PipelineState(one)
    for number in range(1, 50):
        del one.iterator
        one.iterator = iter([number])
        assert next(state.capture()["values"]["0"]["iterator"]["value"]) == number
