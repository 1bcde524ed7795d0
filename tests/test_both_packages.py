"""The same training with a Trainer of ``lightning.pytorch`` and one of ``pytorch_lightning``, stopped and continued."""

import csv
import hashlib
import signal

import lightning.pytorch
import pytest
import pytorch_lightning
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import (
    EmissionsTracker,
    ExactResume,
    GreenMixedPrecision,
    KnowledgeDistillation,
    Pruning,
    QuantizationAwareTraining,
    SamplesPerJoule,
)
from lightning_green.run.coordinator import close_current_run
from tests.helpers.resume_training import CLOCK, quiet

PACKAGES = [lightning.pytorch, pytorch_lightning]


def module_of(package):
    """Return a module of a package that logs means over the epoch."""

    class Net(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))
            self.lr = 0.05
            self.efficiency = SamplesPerJoule()

        def forward(self, x):
            return self.net(x)

        def training_step(self, batch, batch_idx):
            loss = nn.functional.cross_entropy(self(batch[0]).float(), batch[1])
            self.efficiency.update(samples=len(batch[0]), joules=2.0)
            self.log("loss", loss, on_step=True, on_epoch=True)
            self.log("efficiency", self.efficiency, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch, batch_idx):
            self.log("val_loss", nn.functional.cross_entropy(self(batch[0]).float(), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)

    torch.manual_seed(3)
    return Net()


def data():
    x = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long())


def train(package, folder, *callbacks, stop=None, **options):
    """Train two epochs of twelve batches; return the trainer, a digest of the weights, and the exception of a stop."""

    class Stop(package.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == stop:
                signal.raise_signal(signal.SIGTERM)

    package.seed_everything(1, verbose=False)
    trainer = package.Trainer(
        **{
            "max_epochs": 2,
            "accelerator": "cpu",
            "logger": False,
            "default_root_dir": folder,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "callbacks": [*callbacks, Stop()],
            **options,
        }
    )
    module, stopped = module_of(package), None
    with quiet():
        try:
            trainer.fit(module, DataLoader(data(), 4, shuffle=True), DataLoader(data(), 24))
        except SystemExit as exception:
            stopped = exception
    close_current_run()
    tensors = [tensor.detach().numpy().tobytes() for tensor in module.state_dict().values()]
    metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
    return trainer, (hashlib.sha256(b"".join(tensors)).hexdigest(), metrics), stopped


def of_lightning(package):
    """Return callbacks of Lightning whose state an exact resume restores, or whose type is checked."""
    names = package.callbacks
    return [
        names.StochasticWeightAveraging(0.01, swa_epoch_start=1),
        names.GradientAccumulationScheduler({0: 1, 1: 2}),
        names.ModelCheckpoint(monitor="val_loss", save_top_k=2, save_last=True),
        names.EarlyStopping("val_loss", patience=5),
        names.Timer("00:01:00:00"),
    ]


FITS = {
    "plain": (lambda package: [], dict),
    "lightning": (of_lightning, dict),
    "pruning": (lambda package: [Pruning(0.5, end=0.8, every_n_steps=3)], dict),
    "quantization": (lambda package: [QuantizationAwareTraining(begin=0.2, freeze=0.8)], dict),
    "distillation": (lambda package: [KnowledgeDistillation(nn.Linear(8, 2))], dict),
    "precision": (lambda package: [], lambda: {"plugins": [GreenMixedPrecision("bf16")], "gradient_clip_val": 0.1}),
    "learning rate": (lambda package: [package.callbacks.LearningRateFinder(num_training_steps=20)], dict),
}


@pytest.fixture
def run_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", CLOCK)
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    return tmp_path


@pytest.mark.sampled
@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_a_fit_that_was_stopped_ends_with_the_weights_and_metrics_of_one_that_was_not(
    package, name, run_directory, monkeypatch, caplog
):
    callbacks, options = FITS[name]

    def fit(folder, stop=None):
        torch.manual_seed(5)
        monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(run_directory / folder / "run"))
        return train(package, run_directory / folder, *callbacks(package), ExactResume(), stop=stop, **options())

    _, expected, _ = fit("straight")
    for stop in (5, 17):
        if name == "lightning" and stop == 17:
            continue  # fewer optimizer steps than batches
        *_, stopped = fit(f"stopped-{stop}", stop)
        assert type(stopped).__module__ == f"{package.__name__}.utilities.exceptions"
        caplog.clear()
        with caplog.at_level("INFO"):
            trainer, found, _ = fit(f"stopped-{stop}")
        assert f"continued from step {stop}" in caplog.text
        assert found == expected
        assert trainer.global_step == (18 if name == "lightning" else 24)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", FITS)
def test_both_packages_train_the_same(name, run_directory):
    callbacks, options = FITS[name]
    found = []
    for package in PACKAGES:
        torch.manual_seed(5)
        folder = run_directory / package.__name__
        found.append(train(package, folder, *callbacks(package), EmissionsTracker(meter=50.0), **options())[1])
    assert found[0] == found[1]


def test_gradients_are_clipped_in_each_precision(tmp_path):
    for precision in ("fp32", "bf16", "fp16"):
        folder = tmp_path / precision
        clipped, free = (
            train(pytorch_lightning, folder, plugins=[GreenMixedPrecision(precision)], gradient_clip_val=value)[1]
            for value in (1e-3, None)
        )
        assert clipped != free, precision


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_energy_is_logged_by_the_loggers_of_the_package(package, run_directory):
    logger = package.loggers.CSVLogger(run_directory)
    tracker = EmissionsTracker(meter=300.0, grid=100.0)
    _, (_, metrics), _ = train(package, run_directory, tracker, logger=logger, log_every_n_steps=1)
    assert metrics["efficiency"] == 2.0
    assert tracker.summary()["carbon/gco2e"] == pytest.approx(100 * tracker.summary()["energy/kwh"])
    with open(run_directory / "lightning_logs" / "version_0" / "metrics.csv", newline="") as file:
        energy = [float(row["energy/kwh"]) for row in csv.DictReader(file) if row["energy/kwh"]]
    assert energy == sorted(energy)
    assert energy[-1] > 0
