"""Attributes that a script changes during a fit are those of an uninterrupted fit after a resume."""

import collections
import itertools
import random
import types
import warnings

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_green.resume.plain_data import from_plain, to_plain
from lightning_green.resume.script_attributes import ScriptAttributes
from tests.helpers.resume_training import digest
from tests.helpers.trainers import BoringModel, quiet_trainer


class Counter:
    """An object of the script."""

    def __init__(self):
        self.total, self.by_name = 0, {}


class Holder(pl.Callback):
    """A callback with a value."""

    def __init__(self, value=None):
        self.value = value


def attributes_of(folder, callback=None, module=None):
    trainer = quiet_trainer(folder, callback or Holder())
    trainer.strategy.connect(module or BoringModel())
    return trainer, ScriptAttributes(trainer)


def saved_and_restored(folder, make, change):
    """Change the value of a callback, save it, and return the value that another process restores."""
    callback = Holder(make())
    _, attributes = attributes_of(folder, callback)
    attributes.begin()
    change(callback)
    saved = from_plain(to_plain(attributes.capture()))
    other = Holder(make())
    before = other.value
    attributes_of(folder, other)[1].restore(saved)
    return other.value, before


def set_to(value):
    return lambda callback: setattr(callback, "value", value)


@pytest.mark.parametrize("value", [0.5, True, "text", None, (1, "b"), {"a": [1, 2]}, 3 + 1j, float("inf")])
def test_plain_values_are_restored(tmp_path, value):
    assert saved_and_restored(tmp_path, lambda: "before", set_to(value))[0] == value


@pytest.mark.parametrize(
    ("make", "change"),
    [
        (lambda: [1], lambda value: value.append(2)),
        (dict, lambda value: value.update(a={"b": 1})),
        (set, lambda value: value.add(3)),
        (lambda: collections.deque([1, 2], 2), lambda value: value.append(3)),
        (lambda: np.zeros(3), lambda value: value.__setitem__(1, 5.0)),
        (lambda: torch.zeros(3), lambda value: value.add_(1)),
        (lambda: [torch.zeros(2), torch.zeros(2)], lambda value: value[1].add_(1)),
    ],
    ids=["list", "dict", "set", "deque", "array", "tensor", "list of tensors"],
)
def test_objects_that_change_in_place_are_restored_in_place(tmp_path, make, change):
    """Other objects of the script may refer to the same list."""
    expected = make()
    change(expected)
    restored, same = saved_and_restored(tmp_path, make, lambda callback: change(callback.value))
    assert restored is same
    assert digest(list(restored)) == digest(list(expected))
    assert type(restored) is type(expected)


def test_tensor_to_which_an_attribute_refers_is_not_changed(tmp_path):
    def make():
        samples = [torch.full((2,), float(number)) for number in range(3)]
        return Holder(samples[0]), samples

    (callback, samples), (other, others) = make(), make()
    _, attributes = attributes_of(tmp_path, callback)
    attributes.begin()
    callback.value = samples[1]
    saved = from_plain(to_plain(attributes.capture()))
    attributes_of(tmp_path, other)[1].restore(saved)
    assert other.value.tolist() == [1, 1]
    assert [one.tolist() for one in others] == [[0, 0], [1, 1], [2, 2]]


def test_tensor_that_replaces_another_one_is_saved(tmp_path):
    callback = Holder(torch.zeros(3))
    _, attributes = attributes_of(tmp_path, callback)
    attributes.begin()
    for number in range(1, 50):
        del callback.value
        callback.value = torch.full((3,), float(number))
        (values,) = attributes.capture()["values"].values()
        assert values["value"]["value"].tolist() == [number] * 3


def test_tensor_that_cannot_be_written_to_is_replaced(tmp_path):
    restored, _ = saved_and_restored(tmp_path, lambda: torch.zeros(1).expand(3), set_to(torch.ones(3)))
    assert restored.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: np.random.default_rng(3), lambda one: one.random()),
        (lambda: np.random.RandomState(3), lambda one: one.random_sample()),
        (lambda: random.Random(3), lambda one: one.random()),
        (lambda: torch.Generator().manual_seed(3), lambda one: float(torch.rand(1, generator=one))),
    ],
    ids=["NumPy", "old NumPy", "Python", "torch"],
)
def test_generators_continue(tmp_path, make, draw):
    straight = make()
    expected = [draw(straight) for _ in range(4)][2:]
    restored, same = saved_and_restored(tmp_path, make, lambda callback: (draw(callback.value), draw(callback.value)))
    assert restored is same
    assert [draw(restored) for _ in range(2)] == expected


@pytest.mark.parametrize("make", [itertools.count, lambda: iter([5, 6, 7]), lambda: iter(range(9))])
def test_iterators_continue(tmp_path, make):
    straight = list(itertools.islice(make(), 3))
    restored, _ = saved_and_restored(tmp_path, make, lambda callback: next(callback.value))
    assert list(itertools.islice(restored, 2)) == straight[1:]


def test_iterators_of_unknown_position_are_reported_before_they_advance(tmp_path):
    _, attributes = attributes_of(tmp_path, Holder(i * i for i in range(9)))
    attributes.begin()
    with pytest.warns(UserWarning, match=r"These attributes are iterators, .*: callbacks\[\d\]\.value\. After a pause"):
        attributes.capture()


class Countdown:
    """An iterator of the script."""

    def __init__(self, inner=None):
        self.position, self.inner = 0, inner

    def __iter__(self):
        return self

    def __next__(self):
        self.position += 1
        return self.position


@pytest.mark.filterwarnings("error:These attributes")
def test_iterator_of_the_script_continues(tmp_path):
    restored, same = saved_and_restored(tmp_path, Countdown, lambda callback: next(callback.value))
    assert restored is same
    assert next(restored) == 2


def test_generator_in_an_iterator_of_the_script_is_reported(tmp_path):
    _, attributes = attributes_of(tmp_path, Holder(Countdown(i for i in range(9))))
    attributes.begin()
    with pytest.warns(UserWarning, match=r"are iterators, .*: callbacks\[\d\]\.value\.inner\. After a pause"):
        attributes.capture()


def test_attributes_of_objects_of_the_script_are_restored(tmp_path):
    def change(callback):
        callback.value.total, callback.value.by_name["a"] = 3, [1]

    restored, same = saved_and_restored(tmp_path, Counter, change)
    assert restored is same
    assert (restored.total, restored.by_name) == (3, {"a": [1]})


def test_only_what_has_changed_is_saved(tmp_path):
    module = BoringModel()
    module.constant, module.changing = [1, 2], 1
    _, attributes = attributes_of(tmp_path, module=module)
    assert attributes.capture() == {"values": {}, "requires_grad": {}}, "nothing is known before the start"
    attributes.begin()
    module.changing, module.added = 2, "new"
    values = attributes.capture()["values"]
    assert {path: {name: one["value"] for name, one in found.items()} for path, found in values.items()} == {
        "module": {"changing": 2, "added": "new"}
    }


def test_modes_and_settings_of_layers_and_hyperparameters_are_restored(tmp_path):
    class Net(BoringModel):
        def __init__(self, weight=1.0):
            super().__init__()
            self.save_hyperparameters()
            self.norm, self.dropout = nn.BatchNorm1d(2), nn.Dropout(0.5)

    module = Net()
    _, attributes = attributes_of(tmp_path, module=module)
    attributes.begin()
    module.norm.eval()
    module.dropout.p, module.hparams.weight = 0.1, 2.0
    module.layer.weight.requires_grad_(False)
    other = Net()
    attributes_of(tmp_path, module=other)[1].restore(attributes.capture())
    assert (other.norm.training, other.dropout.training, other.dropout.p) == (False, True, 0.1)
    assert other.hparams.weight == 2.0
    assert [one.requires_grad for one in other.layer.parameters()] == [False, True]


def test_references_to_weights_are_left_alone(tmp_path):
    """A list of parameters changes with every step, and copies of them would no longer be trained."""

    def make():
        module = BoringModel()
        module.trained = [module.layer.weight]
        module.view = module.layer.bias.detach().view(-1, 1)
        return module

    module = make()
    _, attributes = attributes_of(tmp_path, module=module)
    attributes.begin()
    with torch.no_grad():
        module.layer.weight.add_(1)
        module.layer.bias.add_(1)
    assert attributes.capture()["values"] == {}


def test_forward_that_ddp_has_set_again_is_no_change(tmp_path):
    class Own(BoringModel):
        pass

    module = Own()
    _, attributes = attributes_of(tmp_path, module=module)
    attributes.begin()
    module.forward = module.forward
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert attributes.capture()["values"] == {}
    module.forward = lambda x: x
    with pytest.warns(UserWarning, match=r"cannot be saved: module\.forward\. After a pause"):
        attributes.capture()


def test_change_that_cannot_be_saved_is_reported_once(tmp_path):
    callback = Holder(lambda: 1)
    _, attributes = attributes_of(tmp_path, callback)
    attributes.begin()
    callback.value = lambda: 2
    with pytest.warns(UserWarning, match=r"cannot be saved: callbacks\[\d\]\.value\. After a pause"):
        assert attributes.capture()["values"] == {}
    assert attributes.capture()["values"] == {}


@pytest.mark.parametrize("value", [torch.nn.Linear(2, 2), types.SimpleNamespace(a=1), DataLoader([1])])
def test_objects_of_libraries_are_not_entered(tmp_path, value):
    callback = Holder(value)
    _, attributes = attributes_of(tmp_path, callback)
    attributes.begin()
    callback.value.another = 1
    found = attributes.capture()["values"]
    assert set(found) <= {f"callbacks[{index}]" for index in range(9)}


def begin_with_sanity_check(attributes):
    attributes.before_sanity_check()
    attributes.after_sanity_check()
    attributes.begin()


def test_object_that_cannot_be_read_does_not_stop_the_training(tmp_path):
    class Unreadable(list):
        def __len__(self):
            raise OSError("the file is closed")

    class Script(BoringModel):
        pass

    module = Script()
    module.number, module.values = 1, Unreadable([1])
    _, attributes = attributes_of(tmp_path, module=module)
    with pytest.warns(UserWarning, match="cannot be read: OSError") as warned:
        begin_with_sanity_check(attributes)
    assert len(warned) == 1
    module.number = 2
    module.layer.bias.requires_grad_(False)
    assert attributes.capture() == {"values": {}, "requires_grad": {"layer.bias": False}}
