"""Nested states become plain data and back; the rest is refused with its path, and hostile files are harmless."""

import collections
import dataclasses
import functools
import pathlib
import re
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.resume.load_check import check_loads
from lightning_green.resume.plain_data import TAG, NotPlainError, from_plain, to_plain
from tests.helpers import plain_values
from tests.helpers.plain_values import Color, Config, Level, Pair, save_and_load


def test_tensors_are_not_copied_and_subclasses_become_plain_tensors(tmp_path):
    class Named(torch.Tensor):
        pass

    weight, parameter = torch.arange(100.0), torch.nn.Parameter(torch.ones(2))
    state = {"weight": weight, "parameter": parameter, "named": torch.ones(3).as_subclass(Named)}
    plain = to_plain(state)
    assert plain["weight"] is weight
    assert plain["parameter"] is parameter
    restored = save_and_load(state, tmp_path / "file")
    assert {name: type(tensor) for name, tensor in restored.items()} == {
        "weight": torch.Tensor,
        "parameter": torch.nn.Parameter,
        "named": torch.Tensor,
    }
    assert torch.equal(restored["named"], torch.ones(3))


def test_plain_data_is_returned_unchanged():
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    state = {"state_dict": module.state_dict(), "optimizer": optimizer.state_dict(), "loops": {"epoch": [1, (2, None)]}}
    plain = to_plain(state)
    assert plain is state
    assert plain["state_dict"]._metadata == module.state_dict()._metadata


REFUSED = [
    (lambda x: x, "builtins.function"),
    (functools.partial(int), "functools.partial"),
    (re.compile("a"), "re.Pattern"),
    (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    (object(), "builtins.object"),
    (int, "builtins.type"),
    (np.array([object()]), "numpy.ndarray"),
    (collections.defaultdict(lambda: 1), "collections.defaultdict"),
    (plain_values.Factory(int), "tests.helpers.plain_values.Factory"),
    (plain_values.OfThread(), "tests.helpers.plain_values.OfThread"),
]


@pytest.mark.parametrize(("value", "kind"), REFUSED, ids=[kind for _, kind in REFUSED])
def test_error_names_the_path_and_type_of_a_value_that_cannot_be_saved(value, kind):
    with pytest.raises(NotPlainError) as refused:
        to_plain({"callbacks": {"Mine": {"v": [1, value]}}})
    assert str(refused.value) == f"callbacks['Mine']['v'][1] is a `{kind}`, which cannot be saved"
    assert refused.value.path == "callbacks['Mine']['v'][1]"


def test_ordered_dict_of_a_class_keeps_its_items_their_order_and_its_attributes(tmp_path):
    ordered, output = plain_values.Ordered(z=1, a=2), plain_values.Output(0.5)
    ordered.name = "mine"
    ordered, output = save_and_load([ordered, output], tmp_path / "state")
    assert (type(ordered), list(ordered.items()), ordered.name) == (plain_values.Ordered, [("z", 1), ("a", 2)], "mine")
    assert (type(output), dict(output), output.loss) == (plain_values.Output, {"loss": 0.5}, 0.5)


def test_local_class_cycle_and_deep_nesting_are_refused():
    @dataclasses.dataclass
    class Local:
        x: int = 1

    loop, deep = [], []
    loop.append(loop)
    for _ in range(500):
        deep = [deep]
    for value, message in ((Local(), "a local class"), (loop, "contains itself"), (deep, "nested too deeply")):
        with pytest.raises(NotPlainError, match=message):
            to_plain({"v": value})


HOSTILE = [
    {TAG: "enum", "class": ["antigravity", "fly"], "value": "x"},
    {TAG: "dataclass", "class": ["subprocess", "Popen"], "value": {"args": "true"}},
    {TAG: "mapping", "class": ["subprocess", "Popen"], "value": [{}, {}]},
    {TAG: "namedtuple", "class": ["os", "system"], "value": ["true"]},
    {TAG: "enum", "class": ["sys", "modules.os.system"], "value": "x"},
    {TAG: "enum", "class": ["enum", "Enum.__class__"], "value": "x"},
    {TAG: "ndarray", "value": ["|O", [1], torch.zeros(8, dtype=torch.uint8)]},
    {TAG: "unknown", "value": 1},
    {TAG: "datetime", "value": "x"},
    {TAG: "enum"},
]


@pytest.mark.parametrize("saved", HOSTILE, ids=str)
def test_hostile_data_imports_and_calls_nothing(saved):
    with pytest.raises(RuntimeError):
        from_plain({"v": [saved]})
    assert "antigravity" not in sys.modules


def test_error_names_a_class_that_no_longer_exists(monkeypatch):
    plain = to_plain(Config())
    monkeypatch.delattr(plain_values, "Config")
    with pytest.raises(RuntimeError, match=r"Config`, which the state contains, is no longer defined in this script"):
        from_plain(plain)


LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5), st.binary(max_size=5),
    st.datetimes(), st.timedeltas(), st.sampled_from([Color.RED, Level.LOW, pathlib.Path("x"), TAG]), st.uuids(),
)  # fmt: skip
KEYS = st.one_of(st.text(max_size=3), st.integers(), st.sampled_from([TAG, Color.BLUE, (1, 2)]))
STATES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(KEYS, inner, max_size=3),
        st.builds(Config, st.integers(), inner),
        st.builds(Pair, inner, inner),
        st.lists(inner, max_size=3).map(collections.deque),
        st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(STATES)
def test_any_nesting_is_restored_equal(state):
    assert from_plain(to_plain(state)) == state
    check_loads(state)
