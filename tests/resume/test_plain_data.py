"""What a checkpoint may hold besides tensors: it comes back equal, or it is named before anything depends on it."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import pathlib
import random
import re
import sys
import types
import uuid
import zoneinfo

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.resume.plain_data import NotPlainError, from_plain, prove_loads, to_plain

TAG = "lightning_green/type"


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


class Level(enum.IntEnum):
    LOW = 1


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Config:
    width: int = 3
    folder: object = None


@dataclasses.dataclass(frozen=True)
class Frozen:
    color: Color = Color.RED


@dataclasses.dataclass
class Slotted:
    __slots__ = ("x",)
    x: int


class Settings(dict):
    pass


Pair = collections.namedtuple("Pair", "one other")

EQUAL = [
    None,
    True,
    3,
    2**300,
    0.1,
    "text",
    1j,
    b"",
    b"bytes",
    bytearray(b"b"),
    [1, (2, "x")],
    {1, 2},
    frozenset({"a"}),
    range(1, 9, 2),
    slice(1, None),
    {"a": {"b": [None]}},
    {(1, "x"): Color.RED, Color.BLUE: 2, pathlib.Path("x"): 3},
    {TAG: "enum", "value": 1},
    pathlib.Path("data"),
    pathlib.PureWindowsPath("c:/x"),
    Color.RED,
    Level.LOW,
    Flags.A | Flags.B,
    Config(5, pathlib.Path("data")),
    Frozen(Color.BLUE),
    Slotted(4),
    Pair(1, Color.RED),
    Settings(a=1, b=pathlib.Path("x")),
    datetime.datetime(2024, 5, 2, 1, 2, 3, 4),
    datetime.datetime(2024, 5, 2, tzinfo=datetime.timezone.utc),
    datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    datetime.date(2024, 5, 2),
    datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    datetime.timedelta(days=-1, microseconds=7),
    collections.deque([1, 2], maxlen=3),
    collections.OrderedDict(a=1, b=np.float64(2)),
    collections.Counter("hello"),
    collections.defaultdict(list, {1: [2]}),
    argparse.Namespace(lr=0.1, folder=pathlib.Path("x")),
    types.SimpleNamespace(a=1),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    np.float64(0.1),
    np.float32(1.5),
    np.int8(-3),
    np.bool_(True),
    np.str_("x"),
    np.datetime64("2024-05-02T01:02"),
    np.dtype("float16"),
    torch.float32,
    torch.device("cpu"),
    torch.Size([1, 2]),
]
ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.zeros((0, 3), np.int32),
    np.array(True),
    np.array(["a", "bc"]),
    np.array([1 + 2j], np.complex64),
    np.array([1.5], np.float16),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
    np.array(["2024-05-02"], "datetime64[D]"),
]


def through_a_file(value, path):
    """Save as a checkpoint is saved, and load as one is loaded."""
    torch.save(to_plain({"state": value}), path)
    return from_plain(torch.load(path, weights_only=True))["state"]


@pytest.mark.parametrize("value", EQUAL, ids=repr)
def test_ordinary_data_is_restored_equal(value, tmp_path):
    restored = through_a_file(value, tmp_path / "file")
    assert type(restored) is type(value)
    assert restored == value
    prove_loads({"state": value})


@pytest.mark.parametrize("value", ARRAYS, ids=repr)
def test_arrays_are_restored_equal_and_writable(value, tmp_path):
    restored = through_a_file(value, tmp_path / "file")
    assert (restored.dtype, restored.shape) == (value.dtype, value.shape)
    assert np.array_equal(restored, value)
    assert restored.flags.writeable
    prove_loads([value])


def test_tensors_are_not_copied_and_subclasses_become_plain_tensors(tmp_path):
    class Named(torch.Tensor):
        pass

    weight, parameter = torch.arange(100.0), torch.nn.Parameter(torch.ones(2))
    state = {"weight": weight, "parameter": parameter, "named": torch.ones(3).as_subclass(Named)}
    plain = to_plain(state)
    assert plain["weight"] is weight
    assert plain["parameter"] is parameter
    restored = through_a_file(state, tmp_path / "file")
    assert {name: type(tensor) for name, tensor in restored.items()} == {
        "weight": torch.Tensor,
        "parameter": torch.nn.Parameter,
        "named": torch.Tensor,
    }
    assert torch.equal(restored["named"], torch.ones(3))


def test_what_is_plain_already_is_returned_as_it_is():
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(module.parameters())
    state = {"state_dict": module.state_dict(), "optimizer": optimizer.state_dict(), "loops": {"epoch": [1, (2, None)]}}
    plain = to_plain(state)
    assert plain is state
    assert plain["state_dict"]._metadata == module.state_dict()._metadata


@pytest.mark.parametrize("draw", ["numpy", "legacy numpy", "python", "torch"])
def test_generators_of_random_numbers_continue(draw, tmp_path):
    make = {
        "numpy": lambda: np.random.default_rng(1),
        "legacy numpy": lambda: np.random.RandomState(1),
        "python": lambda: random.Random(1),
        "torch": lambda: torch.Generator().manual_seed(1),
    }[draw]

    def numbers(generator):
        return [float(torch.rand((), generator=generator)) if draw == "torch" else generator.random() for _ in range(3)]

    generator = make()
    numbers(generator)
    restored = through_a_file(generator, tmp_path / "file")
    assert numbers(restored) == numbers(generator)
    prove_loads([generator])


REFUSED = [
    (lambda x: x, "builtins.function"),
    (functools.partial(int), "functools.partial"),
    (re.compile("a"), "re.Pattern"),
    (torch.nn.Linear(1, 1), "torch.nn.modules.linear.Linear"),
    (object(), "builtins.object"),
    (int, "builtins.type"),
    (np.array([object()]), "numpy.ndarray"),
    (collections.defaultdict(lambda: 1), "collections.defaultdict"),
]


@pytest.mark.parametrize(("value", "kind"), REFUSED, ids=[kind for _, kind in REFUSED])
def test_what_cannot_be_saved_is_named_with_its_place(value, kind):
    with pytest.raises(NotPlainError) as refused:
        to_plain({"callbacks": {"Mine": {"v": [1, value]}}})
    assert str(refused.value) == f"callbacks['Mine']['v'][1] is a `{kind}`, which cannot be saved"
    assert refused.value.path == "callbacks['Mine']['v'][1]"


def test_a_local_class_a_cycle_and_endless_nesting_are_refused():
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


def test_what_is_not_equal_when_it_is_read_back_is_refused():
    @dataclasses.dataclass
    class Odd(dict):
        pass

    with pytest.raises(NotPlainError):
        prove_loads({"v": Odd()})
    meta = torch.empty(100, device="meta")
    prove_loads({"v": meta, "w": torch.zeros(10**6), "nan": [float("nan"), torch.tensor(float("nan"))]})


HOSTILE = [
    {TAG: "enum", "class": ["antigravity", "fly"], "value": "x"},
    {TAG: "dataclass", "class": ["subprocess", "Popen"], "value": {"args": "true"}},
    {TAG: "mapping", "class": ["subprocess", "Popen"], "value": [{}, {}]},
    {TAG: "namedtuple", "class": ["os", "system"], "value": ["true"]},
    {TAG: "enum", "class": ["sys", "modules.os.system"], "value": "x"},
    {TAG: "enum", "class": ["enum", "Enum.__class__"], "value": "x"},
    {TAG: "ndarray", "value": ["|O", [1], torch.zeros(8, dtype=torch.uint8)]},
    {TAG: "nothing of ours", "value": 1},
    {TAG: "datetime", "value": "x"},
    {TAG: "enum"},
]


@pytest.mark.parametrize("saved", HOSTILE, ids=str)
def test_a_hostile_file_imports_and_calls_nothing(saved):
    with pytest.raises(RuntimeError):
        from_plain({"v": [saved]})
    assert "antigravity" not in sys.modules


def test_a_class_that_is_gone_is_named(monkeypatch):
    plain = to_plain(Config())
    monkeypatch.delattr(sys.modules[__name__], "Config")
    with pytest.raises(RuntimeError, match=r"Config`, which is in the state, is not defined in this script any more"):
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
def test_any_nesting_of_it_is_restored_equal(state):
    assert from_plain(to_plain(state)) == state
    prove_loads(state)
