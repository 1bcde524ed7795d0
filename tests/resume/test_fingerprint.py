"""Fingerprints are equal for equal trainings, also in another process, and differences are named."""

import functools
import json
import pathlib
import time
import types

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset
from lightning.pytorch.strategies import FSDPStrategy
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, IterableDataset

from lightning_green import EmissionsTracker
from lightning_green.resume.fingerprint import (
    data_fingerprint,
    differences,
    fit_fingerprint,
    optimizer_fingerprint,
)
from tests.resume.test_description import Unknown, settings_of_every_kind


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Keep what a Trainer writes by default out of the working directory."""
    monkeypatch.chdir(tmp_path)


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
def test_same_training_has_no_differences(kind, configure):
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


def test_changed_scheduler_is_named():
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


def test_attributes_are_omitted_after_the_first_fit():
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


def test_long_values_are_shortened_around_their_difference():
    (sentence,) = differences({"a": "x" * 150 + "1" + "y" * 200}, {"a": "x" * 150 + "2"})
    assert sentence == f"a: ...{'x' * 20}1{'y' * 53}... then, ...{'x' * 20}2 now"
    (sentence,) = differences({"a": ["x" * 200]}, {"a": []})
    assert len(sentence) < 120
