"""Equal settings have equal descriptions, also in another process."""

import argparse
import collections
import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time
import types
import uuid

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_green import EmissionsTracker
from lightning_green.resume.description import describe
from lightning_green.resume.fingerprint import differences


class Color(enum.Enum):
    RED = 1


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Settings:
    lr: float = 0.1
    layers: tuple = (1, 2)


@dataclasses.dataclass
class SlottedSettings:
    __slots__ = ("lr",)
    lr: float


class Unknown:
    """An object whose methods must not be called."""

    def __repr__(self):
        raise AssertionError("repr was called")

    __str__ = __hash__ = __len__ = __iter__ = __eq__ = __bool__ = __repr__

    def __getattr__(self, name):
        raise AssertionError(f"{name} was read")


class Proxy:
    @property
    def __class__(self):
        raise AssertionError("__class__ was read")


class Number(float):
    pass


class BrokenMapping(collections.UserDict):
    def items(self):
        raise RuntimeError("not now")


class Dumped:
    def model_dump(self):
        return {"lr": 0.1, "kind": Color.RED}


Point = collections.namedtuple("Point", ["x", "y"])


def function(x):
    return x


def cyclic():
    values = [1]
    values.append(values)
    return values


def nested(depth):
    return [nested(depth - 1)] if depth else []


def settings_of_every_kind():
    """Return settings that a script may pass to ``save_hyperparameters``; made again in every process."""
    return {
        "function": function,
        "lambda": lambda x: x,
        "local function": settings_of_every_kind,
        "object": Unknown(),
        "proxy": Proxy(),
        "path": pathlib.Path("data") / "train.csv",
        "namespace": argparse.Namespace(lr=0.1, names={"b", "a"}),
        "simple namespace": types.SimpleNamespace(lr=0.1),
        "enum": Color.RED,
        "int enum": Level.HIGH,
        "float64": np.float64(0.1),
        "array": np.arange(6.0).reshape(2, 3),
        "array of objects": np.array([{"a"}, None, 1], dtype=object),
        "loss": torch.nn.CrossEntropyLoss(),
        "layer": torch.nn.Linear(3, 4),
        "strings": {"adam", "sgd", "lion", "rmsprop", "adagrad"},
        "many": {f"name {number}" for number in range(100)},
        "mixed set": frozenset([1, "a", None, (1, 2), function]),
        "dataclass": Settings(),
        "partial": functools.partial(torch.optim.Adam, lr=0.1, betas=(0.9, 0.99)),
        "class": torch.optim.Adam,
        "builtin": len,
        "torch function": torch.relu,
        "method": Unknown.__repr__,
        "ufunc": np.sin,
        "tensor": torch.arange(4.0),
        "bfloat16": torch.ones(2, 3, dtype=torch.bfloat16),
        "callbacks": [EmissionsTracker(meter=100), ModelCheckpoint()],
        "time": datetime.datetime.now(),
        "day": datetime.date.today(),
        "seconds": time.time(),
        "milliseconds": int(time.time() * 1000),
        "timer": time.perf_counter(),
        "name": f"run-{datetime.datetime.now():%Y%m%d_%H%M%S}",
        "iso": datetime.datetime.now(datetime.timezone.utc).isoformat(),
        "ctime": f"started {time.ctime()}",
        "tensorboard": datetime.datetime.now().strftime("runs/%b%d_%H-%M-%S_host"),
        "hydra": datetime.datetime.now().strftime("outputs/%Y-%m-%d/%H-%M-%S"),
        "epoch in a name": f"run_{time.time():.0f}",
        "day in a name": f"run_{datetime.date.today():%Y%m%d}",
        "uuid": uuid.uuid4(),
        "uuid in a name": f"run-{uuid.uuid4()}",
        "uuid without dashes": f"run-a{uuid.uuid4().hex}",
        "temporary": tempfile.mkdtemp(),
        "temporary path": pathlib.Path(tempfile.gettempdir()) / f"pytest-{os.getpid()}" / "data",
        "repr": object.__repr__(object()),
        "lock": threading.Lock(),
        "generator": torch.Generator(),
        "open file": sys.__stderr__,
        ("tuple", 1): 1,
        Color.RED: 2,
        function: 3,
        None: 4,
        1: 5,
        "1": 6,
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.1, 0.1),
        (np.float64(0.1), 0.1),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (np.str_("adam"), "adam"),
        (np.longdouble(0.5), 0.5),
        (np.datetime64("2026-11-26"), "<time>"),
        (Number(0.5), 0.5),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (np.float32("inf"), "inf"),
        (1 + 2j, "(1+2j)"),
        (datetime.timedelta(hours=1), "1:00:00"),
        (decimal.Decimal("0.10"), "0.10"),
        (range(3), "range(0, 3)"),
        (pathlib.PurePosixPath("a/b"), "a/b"),
        (Color.RED, "Color.RED"),
        (Level.HIGH, "Level.HIGH"),
        (torch.float32, "torch.float32"),
        (torch.device("cuda:1"), "cuda:1"),
        (torch.Size([3, 4]), "torch.Size([3, 4])"),
        (re.compile("a+"), "regex a+"),
        ((1, [2.5, "x"]), [1, [2.5, "x"]]),
        ({3, 1, 2}, [1, 2, 3]),
        (collections.deque([1, 2]), [1, 2]),
        ({1: "a", "1": "b", None: "c"}, {"1": "a", "1 (2)": "b", "None": "c"}),
        (Point(1, 2), {"x": 1, "y": 2}),
        (Settings(), {"lr": 0.1, "layers": [1, 2]}),
        (SlottedSettings(0.1), {"lr": 0.1}),
        (Dumped(), {"lr": 0.1, "kind": "Color.RED"}),
        (collections.UserDict(a=1), {"a": 1}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (argparse.Namespace(a=argparse.Namespace(b=1)), {"a": {"b": 1}}),
        (torch.nn.CrossEntropyLoss(), "module torch.nn.modules.loss.CrossEntropyLoss"),
        (torch.nn.functional.relu, "function torch.nn.functional.relu"),
        (lambda x: x, "lambda"),
        (len, "function builtins.len"),
        (torch.optim.Adam, "class torch.optim.adam.Adam"),
        (
            functools.partial(torch.nn.functional.relu, inplace=True),
            {"partial": "function torch.nn.functional.relu", "keywords": {"inplace": True}},
        ),
        (BrokenMapping(), f"object {__name__}.BrokenMapping"),
        (cyclic(), [1, "<...>"]),
        (torch.nn.LazyLinear(3).weight, "uninitialized"),
        (torch.ones(2, device="meta"), "tensor float32 (2,)"),
        ("\ud800", "\\ud800"),
    ],
)
def test_describe(value, expected):
    assert describe(value) == expected


@pytest.mark.parametrize("kind", [Unknown, Proxy])
def test_objects_of_unknown_classes_are_not_called(kind):
    assert describe(kind()) == f"object {__name__}.{kind.__name__}"


def test_long_values_are_described_by_a_digest():
    assert describe("x" * 200) == "x" * 200
    assert describe("x" * 201).startswith("x" * 60 + "... (201 characters, ")
    assert describe("x" * 300 + "a") != describe("x" * 300 + "b")
    assert describe(list(range(64))) == list(range(64))
    assert re.fullmatch(r"list of 65, [0-9a-f]{8}", describe(list(range(65))))
    assert describe(list(range(100))) != describe([*range(99), 0])
    assert re.fullmatch(r"dict of 1001, [0-9a-f]{8}", describe({str(key): key for key in range(1001)}))
    assert re.fullmatch(r"bytes of 3, [0-9a-f]{8}", describe(b"abc"))
    assert describe(b"abc") != describe(b"abd")
    assert re.fullmatch(r"int of \d+ bits, [0-9a-f]{8}", describe(10**5000))
    assert "<...>" in json.dumps(describe(nested(20)))


def test_shared_parts_do_not_take_exponential_time():
    value = ["x"]
    for _ in range(11):
        value = [value] * 60
    started = time.monotonic()
    describe(value)
    assert time.monotonic() - started < 60


def test_tensors_are_described_by_their_content():
    assert re.fullmatch(r"tensor float32 \(3, 4\) [0-9a-f]{8}", describe(torch.ones(3, 4)))
    assert describe(torch.ones(3, 4)) == describe(np.ones((3, 4), np.float32)) == describe(torch.ones(4, 3).T)
    assert describe(torch.ones(3, 4)) != describe(torch.zeros(3, 4))
    assert describe(torch.ones(3)) != describe(torch.ones(3, dtype=torch.bfloat16))
    assert describe(torch.eye(3).to_sparse()) == describe(torch.eye(3))
    assert describe(torch.tensor([1 + 2j]).conj()) == describe(torch.tensor([1 - 2j]))
    large = torch.zeros(10_000_001, dtype=torch.int8)
    assert describe(large) == describe(large.clone()) == describe(large.numpy())
    assert describe(large) != describe(large + 1)


def test_modules_are_described_by_the_shapes_of_their_parameters():
    assert describe(torch.nn.Linear(3, 4)) == describe(torch.nn.Linear(3, 4))
    assert describe(torch.nn.Linear(3, 4)).startswith("module torch.nn.modules.linear.Linear with 16 parameters, ")
    assert describe(torch.nn.Linear(3, 4)) != describe(torch.nn.Linear(4, 3))
    assert "with 0 parameters" in describe(torch.nn.LazyLinear(4))


def test_omegaconf():
    omegaconf = pytest.importorskip("omegaconf")
    config = omegaconf.OmegaConf.create({"lr": 0.1, "optim": {"lr": "${lr}"}, "missing": "???", "layers": [1, 2]})
    assert describe(config) == {"lr": 0.1, "optim": {"lr": 0.1}, "missing": "???", "layers": [1, 2]}
    assert describe(config.layers) == [1, 2]
    unresolved = omegaconf.OmegaConf.create({"a": "${absent}"})
    assert describe(unresolved) == {"a": "${absent}"}


def test_pydantic_models():
    pydantic = pytest.importorskip("pydantic")
    config = pydantic.create_model("Config", lr=(float, 0.1), names=(list[str], ["a"]))()
    assert describe({"config": config}) == {"config": {"lr": 0.1, "names": ["a"]}}


def test_attrs_classes():
    attrs = pytest.importorskip("attrs")
    assert describe(attrs.make_class("Config", {"lr": attrs.field(default=0.1)})()) == {"lr": 0.1}


def test_descriptions_survive_json():
    described = describe(settings_of_every_kind())
    assert json.loads(json.dumps(described, allow_nan=False)) == described


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers() | st.text() | st.binary()
_KEYS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.sets(_KEYS) | st.dictionaries(_KEYS, inner),
    max_leaves=10,
)


@given(_VALUES)
@settings(deadline=None)
def test_descriptions_of_any_value_survive_json(value):
    described = describe(value)
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert describe(copy.deepcopy(value)) == described


@pytest.mark.slow
def test_descriptions_are_equal_in_another_process():
    code = (
        "import json; from tests.resume.test_description import describe, settings_of_every_kind as every\n"
        "print(json.dumps(describe(every())))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        stdout=subprocess.PIPE,
        check=True,
        cwd=pathlib.Path(__file__).parents[2],
    ).stdout
    assert differences({"x": json.loads(output)}, {"x": describe(settings_of_every_kind())}) == []
    assert json.loads(output) == describe(settings_of_every_kind())
