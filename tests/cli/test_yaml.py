"""Every callback, meter, grid and clock can be written in the YAML of a LightningCLI, and is written back by it."""

import inspect
import sys
import warnings
from datetime import timedelta

import pytest
import yaml
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel

import lightning_green
from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume
from tests.helpers.script_training import CLOCK
from tests.helpers.user_scripts import restored, results, script, straight, supervised

pytest.importorskip("jsonargparse")

CALLBACKS = [
    {
        "class_path": "lightning_green.EmissionsTracker",
        "init_args": {
            "meter": {
                "class_path": "lightning_green.energy.ConstantPowerMeter",
                "init_args": {"watts": {"gpu": 300.0}},
            },
            "grid": "typical:DE",
            "pue": 1.2,
            "clock": {
                "class_path": "lightning_green.SimulatedClock",
                "init_args": {"start": "2024-05-02T00:00:00+00:00", "seconds_per_batch": 600.0},
            },
        },
    },
    {
        "class_path": "lightning_green.CarbonScheduler",
        "init_args": {
            "grid": "typical:DE",
            "deadline": "36h",
            "on_pause": "hold",
            "hold_power": 0.3,
            "resume_cost": "measured",
            "min_saving": 0.02,
            "every_n_steps": 4,
            "checkpoint_every": None,
            "meter": {
                "class_path": "lightning_green.energy.ConstantPowerMeter",
                "init_args": {"watts": 300.0},
            },
        },
    },
    {"class_path": "lightning_green.ExactResume", "init_args": {"every": "20m"}},
]


def built(tmp_path, callbacks):
    """Return the callbacks that a LightningCLI makes of a YAML file, and the file that it would save."""
    file = tmp_path / "config.yaml"
    trainer = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "callbacks": callbacks}
    file.write_text(yaml.safe_dump({"trainer": trainer}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = LightningCLI(BoringModel, args=["--config", str(file)], run=False, save_config_callback=None)
        saved = made.parser.dump(made.config, skip_none=False)
    return [one for one in made.trainer.callbacks if type(one).__module__.startswith("lightning_green")], saved


def test_the_callbacks_are_what_the_file_says_and_the_file_is_what_they_are(tmp_path):
    made, saved = built(tmp_path, CALLBACKS)
    tracker, scheduler, resume = made
    assert (type(tracker), type(scheduler), type(resume)) == (EmissionsTracker, CarbonScheduler, ExactResume)
    assert tracker._options.pue == 1.2
    assert tracker._options.meter.watts == {"gpu": 300.0}
    assert tracker._options.clock.now().isoformat() == "2024-05-02T00:00:00+00:00"
    asked = scheduler._arguments
    assert (asked.deadline, asked.on_pause) == (timedelta(hours=36), "hold")
    assert (asked.hold_power, asked.resume_cost, asked.min_saving) == (0.3, "measured", 0.02)
    assert (scheduler.every_n_steps, scheduler.checkpoint_every) == (4, None)
    assert resume.every == timedelta(minutes=20)
    for written, read in zip(yaml.safe_load(saved)["trainer"]["callbacks"], CALLBACKS, strict=True):
        assert holds(written, read)


def holds(written, read):
    """Return whether ``written`` contains all of ``read``; it may contain defaults as well."""
    if isinstance(read, dict):
        return all(name in written and holds(written[name], value) for name, value in read.items())
    return written == read


def test_what_was_saved_makes_the_same_again(tmp_path):
    _, saved = built(tmp_path, CALLBACKS)
    made, again = built(tmp_path, yaml.safe_load(saved)["trainer"]["callbacks"])
    assert [type(one) for one in made] == [EmissionsTracker, CarbonScheduler, ExactResume]
    assert again == saved


@pytest.mark.parametrize("name", ["EmissionsTracker", "CarbonScheduler", "ExactResume"])
def test_without_an_argument(tmp_path, name):
    (made,), _ = built(tmp_path, [{"class_path": f"lightning_green.{name}"}])
    assert type(made).__name__ == name


@pytest.mark.parametrize(
    ("name", "argument", "value"),
    [
        ("CarbonScheduler", "on_pause", "stop"),
        ("CarbonScheduler", "hold_power", 1.5),
        ("CarbonScheduler", "deadline", "tomorrow"),
        ("EmissionsTracker", "pue", 0.5),
        ("EmissionsTracker", "meter", "wattmeter"),
        ("EmissionsTracker", "power", 300),
    ],
)
def test_a_wrong_line_in_the_file_ends_in_a_sentence_that_names_it(tmp_path, capsys, name, argument, value):
    with pytest.raises((SystemExit, ValueError)) as refused:
        built(tmp_path, [{"class_path": f"lightning_green.{name}", "init_args": {argument: value}}])
    assert argument in capsys.readouterr().err + str(refused.value)


@pytest.mark.parametrize("name", lightning_green.__all__)
def test_every_public_constructor_is_typed(name):
    public = getattr(lightning_green, name)
    signature = inspect.signature(public.__init__)
    for parameter in list(signature.parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        assert parameter.annotation is not parameter.empty, f"`{parameter.name}` of {name} has no type"


DEFAULT_CLI = """
from lightning.pytorch.cli import LightningCLI

class Data(pl.LightningDataModule):
    def __init__(self, batch_size: int = 4):
        super().__init__()
        self.save_hyperparameters()
    def train_dataloader(self):
        return loader(batch_size=self.hparams.batch_size)
    def val_dataloader(self):
        return loader(8, 1)

class Module(Net):
    def __init__(self, lr: float = 0.01):
        super().__init__(lr)
        self.save_hyperparameters()

defaults = {"callbacks": CALLBACKS, "max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1}
cli = LightningCLI(Module, Data, trainer_defaults={**defaults, "enable_progress_bar": False})
report("only", cli.trainer, cli.model)
"""


@pytest.mark.slow
def test_default_lightning_cli_resumes_and_saves_its_config_again(tmp_path):
    path = script(tmp_path / "straight", DEFAULT_CLI, "exact()")
    expected, _ = straight(path.parent, path, "fit")
    path = script(tmp_path / "paused", DEFAULT_CLI, "carbon()")
    code, output = supervised(path.parent, sys.executable, path, "fit", options=("--clock", CLOCK))
    assert code == 0, output
    assert restored(path.parent / "run") == [None, "step 6"]
    assert results(path.parent)[0] == expected
    assert [folder.name for folder in (path.parent / "lightning_logs").iterdir()] == ["version_0"]
    assert (path.parent / "lightning_logs" / "version_0" / "config.yaml").exists()
