"""Fingerprints are equal for equal trainings, also in another process, and differences are named."""

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

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from lightning.pytorch.strategies import FSDPStrategy
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, IterableDataset

from lightning_green import EmissionsTracker
from lightning_green.runtime.fingerprint import (
    data_fingerprint,
    describe,
    differences,
    fit_fingerprint,
    optimizer_fingerprint,
)


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Keep what a Trainer writes by default out of the working directory."""
    monkeypatch.chdir(tmp_path)


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-26", "<time>"),
        ("run 2026/11/26 12:44", "run <time>"),
        ("20261126_124459", "<time>"),
        ("20261126-1244_resnet50", "<time>_resnet50"),
        ("20261126124459", "<time>"),
        ("20261126_124459_123456", "<time>"),
        ("261126_124459", "<time>"),
        ("12:44:59", "<time>"),
        ("at 12:44:59.123", "at <time>"),
        ("2026-11-26T12:44:59.123456+00:00", "<time>"),
        ("2026-11-26T12:44:59Z", "<time>"),
        ("20261126T124459Z", "<time>"),
        ("outputs/2026-11-26/12-44-59/model", "outputs/<time>/model"),
        ("runs/Nov26_12-44-59_host", "runs/<time>_host"),
        ("Thu Nov 26 12:44:59 2026", "<time>"),
        ("26 Nov 2026", "<time>"),
        ("run-6f9619ff-8b86-d011-b42d-00cf4fc964ff", "run-<id>"),
        ("run-6F9619FF8B86D011", "run-<id>"),
        ("a1b2c3d4_x", "<id>_x"),
        ("<Thing object at 0x7f12ab34cd56>", "<Thing object>"),
        ("/tmp/pytest-of-me/pytest-0/data.csv", "<temporary path>"),
        ("file in /tmp/a/b, and more", "file in <temporary path>, and more"),
    ],
)
def test_changing_parts_of_strings_are_replaced(text, expected):
    assert describe(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "resnet50", "lr0.001", "v1.2", "2048", "deadbeef", "facade", "effaced", "1e-3", "1.5e-08", "0.20261126",
        "efficientnet_b0", "vit_base_patch16_224", "layers-12-24-36", "ade20k", "3.11.7", "cuda:0", "0x10", "12:30",
        "00:12:00:00", "/tmpdata/x", "data/tmp/x", "s3://bucket/tmp/x", "wiki_20200301", "12345678", "1234567890",
        "2, 4, 8, 16", "mars10_12", "May I", "10.0.0.1:8080", "N(0, 1)", "1-2-3", "192-168-255", "checkpoint_20250230",
    ],
)  # fmt: skip
def test_other_strings_stay(text):
    assert describe(text) == text
    assert describe(pathlib.PurePosixPath(text or "x")) == (text.replace("s3://", "s3:/") or "x")


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("days", [0, -399, 399])
def test_epoch_times_within_400_days_are_replaced(scale, days):
    seconds = time.time() + 86400 * days
    assert describe(seconds * scale) == describe(int(seconds * scale)) == "<time>"
    assert describe(np.float64(seconds * scale)) == "<time>"


@pytest.mark.parametrize("value", [time.time() - 401 * 86400, 42, 1e9, 3e9, 2**31, 2**63, 1e30, True])
def test_other_numbers_stay(value):
    assert describe(value) == value


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


def test_descriptions_are_equal_in_another_process():
    code = (
        "import json; from tests.runtime.test_fingerprint import describe, settings_of_every_kind as every\n"
        "print(json.dumps(describe(every())))"
    )
    for seed in ("1", "2"):
        output = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            stdout=subprocess.PIPE,
            check=True,
            cwd=pathlib.Path(__file__).parents[2],
        ).stdout
        assert differences({"x": json.loads(output)}, {"x": describe(settings_of_every_kind())}) == []
        assert json.loads(output) == describe(settings_of_every_kind())


class Module(BoringModel):
    def __init__(self, configure=None, extra=None, **settings):
        super().__init__()
        self.save_hyperparameters({**settings, **(extra or {})})
        self._configure = configure or (lambda module: torch.optim.SGD(module.parameters(), lr=0.1))

    def configure_optimizers(self):
        return self._configure(self)


class Manual(Module):
    def __init__(self, *arguments, **settings):
        super().__init__(*arguments, **settings)
        self.automatic_optimization = False

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            optimizer.step(functools.partial(self._closure, batch))

    def _closure(self, batch):
        loss = self.step(batch)
        self.manual_backward(loss)
        return loss


class Recorder(pl.Callback):
    def __init__(self):
        self.fingerprint = {}

    def setup(self, trainer, pl_module, stage):
        self.fingerprint.update(fit_fingerprint(trainer))

    def on_fit_start(self, trainer, pl_module):
        self.fingerprint.update(optimizer_fingerprint(trainer))

    def on_train_start(self, trainer, pl_module):
        self.fingerprint.update(data_fingerprint(trainer))


def fit(module, loaders=None, datamodule=None, **options):
    recorder = Recorder()
    options = {
        "max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 0, "logger": False, "accelerator": "cpu",
        "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False, **options,
    }  # fmt: skip
    options["callbacks"] = [*options.get("callbacks", []), recorder]
    if loaders is None and datamodule is None:
        loaders = DataLoader(RandomDataset(32, 16), batch_size=4)
    pl.Trainer(**options).fit(module, loaders, datamodule=datamodule)
    return recorder.fingerprint


def named(saved, current):
    """Return the differences after the first one was kept in a file."""
    return differences(json.loads(json.dumps(saved, allow_nan=False)), current)


def adam_one_cycle(module, **settings):
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    scheduler = lr_scheduler.OneCycleLR(optimizer, **{"max_lr": 0.1, "total_steps": 20, **settings})
    return [optimizer], [{"scheduler": scheduler, "interval": "step"}]


def sgd_plateau(module, **settings):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "monitor": "train_loss", "strict": False}}


def sgd_lambda(module, **settings):
    optimizer = torch.optim.SGD(module.parameters(), **{"lr": 0.1, **settings})
    return [optimizer], [lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.9**epoch)]


def sgd_sequential(module, gamma=0.9, milestone=2):
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    schedulers = [lr_scheduler.LinearLR(optimizer, 0.1), lr_scheduler.ExponentialLR(optimizer, gamma)]
    return [optimizer], [lr_scheduler.SequentialLR(optimizer, schedulers, [milestone])]


def two_optimizers(module):
    return [torch.optim.AdamW(module.parameters(), lr=torch.tensor(0.01)), torch.optim.LBFGS(module.parameters())]


def two_stepped(module, **settings):
    first = torch.optim.Adam([{"params": [module.layer.weight]}, {"params": [module.layer.bias], "lr": 0.5}])
    return [first, torch.optim.SGD(module.parameters(), lr=0.1)], [lr_scheduler.StepLR(first, **{"step_size": 1})]


@pytest.mark.parametrize(
    ("kind", "configure"),
    [
        (Module, adam_one_cycle),
        (Module, sgd_plateau),
        (Module, sgd_lambda),
        (Module, sgd_sequential),
        (Manual, two_stepped),
    ],
)
def test_the_same_training_has_no_differences(kind, configure):
    def run():
        settings = settings_of_every_kind()
        for name in ("object", "proxy", "lock", "open file"):  # Lightning copies the settings
            del settings[name]
        return fit(kind(configure, settings), callbacks=[EmissionsTracker(meter=100)])

    first = run()
    assert first.keys() == {
        "module", "parameters", "hparams", "data", "seed", "limits", "attributes", "optimizers", "schedulers",
        "world_size", "training_batches", "batch_sizes", "samples", "subsets",
    }  # fmt: skip
    assert json.loads(json.dumps(first)) == first
    assert named(first, run()) == []


@pytest.mark.parametrize(
    ("configure", "settings", "expected"),
    [
        (adam_one_cycle, {"max_lr": 0.2}, "optimizers[0].groups[0].max_lr: 0.1 then, 0.2 now"),
        (adam_one_cycle, {"total_steps": 30}, "schedulers[0].total_steps: 20 then, 30 now"),
        (adam_one_cycle, {"pct_start": 0.5}, "schedulers[0].schedule_phases[0].end_step: 5.0 then, 9.0 now"),
        (sgd_plateau, {"patience": 3}, "schedulers[0].patience: 10 then, 3 now"),
        (sgd_plateau, {"mode": "max"}, "schedulers[0].mode: min then, max now"),
        (sgd_lambda, {"lr": 0.2}, "optimizers[0].groups[0].lr: 0.1 then, 0.2 now"),
        (sgd_lambda, {"lr": 0.2}, "schedulers[0].base_lrs: [0.1] then, [0.2] now"),
        (sgd_lambda, {"weight_decay": 0.1}, "optimizers[0].groups[0].weight_decay: 0 then, 0.1 now"),
        (sgd_sequential, {"gamma": 0.8}, "schedulers[0].schedulers[1].gamma: 0.9 then, 0.8 now"),
        (sgd_sequential, {"milestone": 3}, "schedulers[0].milestones: [2] then, [3] now"),
    ],
)
def test_changed_optimizer_settings_are_named(configure, settings, expected):
    first = fit(Module(configure))
    assert expected in named(first, fit(Module(functools.partial(configure, **settings))))


def test_another_scheduler_is_named():
    found = named(fit(Module(sgd_lambda)), fit(Module()))
    assert len(found) == 1
    assert found[0].startswith("schedulers: [{'class': 'torch.optim.lr_scheduler.LambdaLR'")
    assert found[0].endswith(" then, [] now")


def test_learning_rates_in_tensors_are_numbers():
    optimizers = fit(Manual(two_optimizers))["optimizers"]
    assert [one["class"] for one in optimizers] == ["torch.optim.adamw.AdamW", "torch.optim.lbfgs.LBFGS"]
    assert optimizers[0]["groups"][0]["lr"] == pytest.approx(0.01)
    assert optimizers[0]["groups"][0]["parameters"] == 2
    assert optimizers[1]["groups"][0]["history_size"] == 100


def test_optimizers_without_groups_do_not_raise():
    class Wrapper:
        @property
        def param_groups(self):
            raise RuntimeError("sharded")

    trainer = types.SimpleNamespace(optimizers=[Wrapper(), object()], lr_scheduler_configs=[], world_size=2)
    found = optimizer_fingerprint(trainer)
    assert [one["groups"] for one in found["optimizers"]] == [[], []]
    assert found["world_size"] == 2


def test_changed_seed_is_named(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    first = fit(Module())
    monkeypatch.setenv("PL_GLOBAL_SEED", "8")
    assert named(first, fit(Module())) == ["seed: 7 then, 8 now"]
    monkeypatch.delenv("PL_GLOBAL_SEED")
    assert named(first, fit(Module())) == ["seed: 7 then, None now"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_epochs": 2}, "limits.max_epochs: 1 then, 2 now"),
        ({"max_steps": 1}, "limits.max_steps: -1 then, 1 now"),
        ({"accumulate_grad_batches": 2}, "limits.accumulate_grad_batches: 1 then, 2 now"),
        (
            {"callbacks": [GradientAccumulationScheduler({0: 1, 1: 2})]},
            "limits.accumulate_grad_batches: 1 then, {'0': 1, '1': 2} now",
        ),
        ({"gradient_clip_val": 0.5}, "limits.gradient_clip_val: None then, 0.5 now"),
        ({"precision": "bf16-mixed"}, "limits.precision: 32-true then, bf16-mixed now"),
        ({"limit_train_batches": 3}, "limits.limit_train_batches: 2 then, 3 now"),
        ({"val_check_interval": 2}, "limits.val_check_interval: 1.0 then, 2 now"),
        ({"val_check_interval": "00:00:10:00"}, "limits.val_check_interval: 1.0 then, 600.0 seconds now"),
        ({"check_val_every_n_epoch": 3}, "limits.check_val_every_n_epoch: 1 then, 3 now"),
        ({"overfit_batches": 1}, "limits.overfit_batches: 0.0 then, 1 now"),
    ],
)
def test_changed_limits_are_named(options, expected):
    assert expected in named(fit(Module()), fit(Module(), **options))


def test_changed_hparams_are_named():
    first = fit(Module(lr=0.01, optim={"name": "adam", "betas": (0.9, 0.99)}, data=pathlib.Path("a.csv")))
    second = fit(Module(lr=0.02, optim={"name": "sgd", "betas": (0.9, 0.99)}, data=pathlib.Path("a.csv"), depth=3))
    assert first["hparams"] == {"lr": 0.01, "optim.name": "adam", "optim.betas": [0.9, 0.99], "data": "a.csv"}
    assert named(first, second) == [
        "hparams.depth: absent then, 3 now",
        "hparams.lr: 0.01 then, 0.02 now",
        "hparams.optim.name: adam then, sgd now",
    ]


def test_changed_attributes_are_named():
    def module(**attributes):
        made = Module()
        vars(made).update(attributes)
        return made

    kept = {"width": 3, "rates": [0.1, None], "name": "a", "flag": True, "scale": np.float32(0.5)}
    left_out = {"_private": 1, "many": [0] * 33, "object": Unknown(), "nested": [[1]]}
    first = fit(module(**kept, **left_out, started=time.time(), timer=time.perf_counter()))
    assert first["attributes"].keys() == {*kept, "started", "timer"}
    assert first["attributes"]["started"] == first["attributes"]["timer"] == "<time>"
    assert named(first, fit(module(**{**kept, "width": 4}, started=time.time()))) == [
        "attributes.timer: <time> then, absent now",
        "attributes.width: 3 then, 4 now",
    ]


def test_attributes_are_left_out_after_the_first_fit():
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
    trainer.strategy.connect(Module())
    assert fit_fingerprint(trainer)["attributes"] == {}
    assert "attributes" not in fit_fingerprint(trainer, first_fit_of_module=False)


def test_changed_parameters_are_named():
    wider = Module()
    wider.layer = torch.nn.Linear(32, 2, bias=False)
    wider.second = torch.nn.Linear(2, 3)
    first = fit(Module())
    assert first["module"] == f"{__name__}.Module"
    assert first["parameters"] == {"layer.weight": [2, 32], "layer.bias": [2]}
    assert named(first, fit(wider)) == [
        "optimizers[0].groups[0].parameters: 2 then, 3 now",
        "parameters.layer.bias: [2] then, absent now",
        "parameters.second.bias: absent then, [3] now",
        "parameters.second.weight: absent then, [3, 2] now",
    ]


def test_shapes_of_sharded_and_lazy_parameters_are_not_compared():
    class OnCPU(FSDPStrategy):
        """FSDP that Lightning does not refuse on a CPU."""

    module = Module()
    module.lazy = torch.nn.LazyLinear(3)
    for strategy, shape in (("auto", [2]), (OnCPU(), [])):
        trainer = pl.Trainer(logger=False, accelerator="cpu", devices=1, strategy=strategy, enable_checkpointing=False)
        trainer.strategy.connect(module)
        parameters = fit_fingerprint(trainer)["parameters"]
        assert parameters["layer.bias"] == shape
        assert parameters["lazy.weight"] == "uninitialized"


class Data(pl.LightningDataModule):
    def __init__(self, size, batch_size):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        return DataLoader(RandomDataset(32, self.hparams.size), batch_size=self.hparams.batch_size)


def test_changed_data_is_named():
    options = {"limit_train_batches": 1.0}
    first = fit(Module(), datamodule=Data(16, 4), **options)
    assert first["data"] == {"class": f"{__name__}.Data", "hparams": {"size": 16, "batch_size": 4}}
    assert named(first, fit(Module(), datamodule=Data(24, 8), **options)) == [
        "batch_sizes: [4] then, [8] now",
        "data.hparams.batch_size: 4 then, 8 now",
        "data.hparams.size: 16 then, 24 now",
        "samples: [16] then, [24] now",
        "training_batches: 4 then, 3 now",
    ]
    assert named(first, fit(Module(), DataLoader(RandomDataset(32, 16), batch_size=4), **options)) == [
        f"data.class: {__name__}.Data then, None now",
        "data.hparams.batch_size: 4 then, absent now",
        "data.hparams.size: 16 then, absent now",
    ]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.ones(8, 32))


class Batches:
    @property
    def batch_size(self):
        raise RuntimeError("unknown")

    def __iter__(self):
        return iter(torch.ones(3, 4, 32))


class SizedBatches(Batches):
    def __len__(self):
        return 3


class NamedBatchSize(torch.utils.data.BatchSampler):
    pass


def test_any_loader_is_described():
    dataset = RandomDataset(32, 16)
    sampler = NamedBatchSize(torch.utils.data.SequentialSampler(dataset), 2, False)
    for loader, batches, size, samples in (
        (DataLoader(Stream(), batch_size=2), "unknown", 2, "unknown"),
        (Batches(), "unknown", None, "unknown"),
        (SizedBatches(), 3, None, "unknown"),
        (DataLoader(dataset, batch_sampler=sampler), 8, 2, 16),
        (DataLoader(dataset, batch_size=None), 16, None, 16),
    ):
        found = fit(Module(), loader, limit_train_batches=1.0, max_steps=1)
        assert [found[key] for key in ("training_batches", "batch_sizes", "samples")] == [batches, [size], [samples]]


def test_several_loaders_are_described():
    def step(self, batch, batch_idx):
        return self.step(batch["a"])

    module = Module()
    module.training_step = types.MethodType(step, module)
    loaders = {name: DataLoader(RandomDataset(32, 8), batch_size=size) for name, size in (("a", 2), ("b", 4))}
    found = fit(module, loaders)
    assert found["batch_sizes"] == [2, 4]
    assert found["samples"] == [8, 8]


@pytest.mark.parametrize(
    ("saved", "current", "expected"),
    [
        ({}, {"a": 1}, []),
        ({"a": 1}, {"a": 1.0}, []),
        ({"a": [1, {"b": 2}]}, {"a": (1, {"b": 2})}, []),
        ({"a": 0.1}, {"a": 0.10000000000000002}, ["a: 0.1 then, 0.10000000000000002 now"]),
        ({"a": 0.1}, {"a": 0.30000000000000004}, ["a: 0.1 then, 0.30000000000000004 now"]),
        ({"a": "1"}, {"a": 1}, ["a: '1' then, 1 now"]),
        ({"a": ""}, {"a": "x"}, ["a: '' then, 'x' now"]),
        ({"a": {"b": None}}, {"a": {}}, ["a.b: None then, absent now"]),
        ({"a": {}}, {"a": {"b": {"c": 1}}}, ["a.b: absent then, {'c': 1} now"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a: [1, 2] then, [1, 3] now"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a: [1, 2] then, [1] now"]),
        ({"a": {"b": 1}}, {"a": [1]}, ["a: {'b': 1} then, [1] now"]),
        ({"a": "<time>"}, {"a": 1500000000}, []),
        ({"a": "<time>"}, {"a": "b"}, ["a: <time> then, b now"]),
    ],
)
def test_differences(saved, current, expected):
    assert differences(saved, current) == expected


def test_long_values_are_cut_where_they_differ():
    (sentence,) = differences({"a": "x" * 150 + "1" + "y" * 200}, {"a": "x" * 150 + "2"})
    assert sentence == f"a: ...{'x' * 20}1{'y' * 53}... then, ...{'x' * 20}2 now"
    (sentence,) = differences({"a": ["x" * 200]}, {"a": []})
    assert len(sentence) < 120
