"""All public callbacks and precision plugins in the YAML of a LightningCLI: printed, read again, and documented."""

import warnings
from pathlib import Path

import lightning.pytorch as pl
import pytest
import yaml
from lightning.pytorch.demos.boring_classes import BoringModel

import lightning_green
from lightning_green import CarbonScheduler, EmissionsTracker

pytest.importorskip("jsonargparse")
cli = pytest.importorskip("lightning.pytorch.cli")

TEACHER = {"class_path": "lightning.pytorch.demos.boring_classes.BoringModel"}
CALLBACKS = {
    "EmissionsTracker": [{}, {"grid": ["typical:DE", 300.0], "meter": 300.0, "progress_bar": False}],
    "CarbonScheduler": [
        {},
        {"deadline": "36h", "throttle": ["0.78:0.90"], "return_time": "30min", "checkpoint_every": None},
        {"deadline": "2099-01-31T08:00:00+01:00", "hold_power": 0.2, "on_pause": "hold"},
    ],
    "EnergyBudget": [
        {"kwh": 2.0},
        {"gco2e": 500.0, "grid": "typical:DE", "directory": "budget", "on_exceeded": "pause", "check_every": "30s"},
        {"cost": 3.0, "price": 0.3, "on_exceeded": "throttle", "throttle": ["0.78:0.90"], "warn_at": 0.5},
    ],
    "EnergyEarlyStopping": [
        {"monitor": "x", "max_joules_per_point": 5000.0},
        {"monitor": "x", "max_joules_per_point": 1.5, "point": 0.1, "mode": "min"},
    ],
    "ExactResume": [{}, {"every": "1h", "allow_inexact": True}],
    "Pruning": [{"target": 0.5, "include": ["*"]}, {"target": {"layer*": 0.5}, "begin": 0.0, "end": 0.5}],
    "QuantizationAwareTraining": [{"model": "layer"}, {"model": "layer", "keep_float": [], "weight_bits": 7}],
    "KnowledgeDistillation": [
        {"teacher": TEACHER},
        {
            "teacher": TEACHER,
            "losses": {"soft_targets": {"start": 1.0, "stop": 0.0, "begin": 0.0, "end": 1.0}, "standardized": 0.5},
            "task_weight": {"start": 1.0, "stop": 0.5, "begin": 0.0, "end": 1.0},
        },
    ],
}
PLUGINS = {
    "GreenMixedPrecision": [{}, {"precision": "bf16", "keep_fp32": ["layer"], "find_nonfinite": True}],
    "GreenFSDPPrecision": [{}, {"precision": "bf16", "min_scale": 2.0}],
}
CASES = [(name, given) for name, cases in {**CALLBACKS, **PLUGINS}.items() for given in cases]


def public(kind):
    """Return the names of the public classes of a kind."""
    found = {name: getattr(lightning_green, name) for name in lightning_green.__all__}
    return {name for name, one in found.items() if isinstance(one, type) and issubclass(one, kind)}


def test_every_public_callback_and_plugin_is_tested_here():
    assert public(pl.Callback) == set(CALLBACKS)
    assert public(pl.plugins.Precision) == set(PLUGINS)


def command(capsys, *arguments, run=False):
    """Return what a LightningCLI prints, and the CLI; None if it ended without a Trainer."""
    made = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            made = cli.LightningCLI(BoringModel, args=list(arguments), run=run, save_config_callback=None)
        except SystemExit as ended:
            assert not ended.code, capsys.readouterr().err  # noqa: PT017
    return capsys.readouterr().out, made


def config(folder, name, given):
    """Write the YAML file for a callback or a plugin and return its path."""
    entry = {"class_path": f"lightning_green.{name}", "init_args": given}
    part = {"callbacks": [entry]} if name in CALLBACKS else {"plugins": [entry]}
    trainer = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "fast_dev_run": True, **part}
    path = Path(folder) / "config.yaml"
    path.write_text(yaml.safe_dump({"trainer": trainer}))
    return path


@pytest.mark.parametrize(("name", "given"), CASES)
def test_printed_file_prints_the_same_file(tmp_path, capsys, name, given):
    printed, _ = command(capsys, "--config", str(config(tmp_path, name, given)), "--print_config")
    (tmp_path / "printed.yaml").write_text(printed)
    again, _ = command(capsys, "--config", str(tmp_path / "printed.yaml"), "--print_config")
    assert again == printed
    part = yaml.safe_load(printed)["trainer"]["callbacks" if name in CALLBACKS else "plugins"]
    (written,) = part
    assert written["class_path"] == f"lightning_green.{name}"
    assert given.items() <= written["init_args"].items()


@pytest.mark.parametrize(("name", "given"), [case for case in CASES if case[0] != "GreenFSDPPrecision"])
def test_training_with_the_printed_file(tmp_path, capsys, name, given):
    path = str(config(tmp_path, name, given))
    printed, _ = command(capsys, "fit", "--config", path, "--print_config", run=True)
    (tmp_path / "printed.yaml").write_text(printed)
    _, made = command(capsys, "fit", "--config", str(tmp_path / "printed.yaml"), run=True)
    used = [*made.trainer.callbacks, made.trainer.precision_plugin]
    assert name in [type(one).__name__ for one in used]  # of the package of the Trainer
    assert made.trainer.global_step == 1


@pytest.mark.parametrize("name", [*CALLBACKS, *PLUGINS])
def test_help_has_a_sentence_and_a_type_for_each_argument(capsys, name):
    option = "callbacks" if name in CALLBACKS else "plugins"
    shown, _ = command(capsys, f"--trainer.{option}.help=lightning_green.{name}")
    summary = getattr(lightning_green, name).__doc__.strip().splitlines()[0].rstrip(".")
    assert summary[:40] in shown
    entries = shown.partition("Help for")[2].split(f"\n  --trainer.{option}.")[1:]
    undocumented = [entry.split()[0] for entry in entries if "help" not in entry.split()[0] and "(" not in entry]
    assert not undocumented
    for entry in entries:
        text = entry.partition("\n")[2] or entry
        assert text.strip()[:1] not in ("(", ""), f"{entry.split()[0]} of {name} has no description"


def test_callbacks_as_arguments_of_a_command(tmp_path, capsys):
    """``parser.add_lightning_class_args`` makes options such as ``--green.deadline``."""

    class Own(cli.LightningCLI):
        def add_arguments_to_parser(self, parser):
            parser.add_lightning_class_args(EmissionsTracker, "tracker")
            parser.add_lightning_class_args(CarbonScheduler, "green")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet = ["--trainer.accelerator=cpu", "--trainer.logger=false", f"--trainer.default_root_dir={tmp_path}"]
        arguments = [*quiet, "--green.deadline=36h", "--tracker.grid=typical:DE", "--tracker.pue=1.2"]
        made = Own(BoringModel, args=arguments, run=False, save_config_callback=None)
    (tracker,) = [one for one in made.trainer.callbacks if isinstance(one, EmissionsTracker)]
    (scheduler,) = [one for one in made.trainer.callbacks if isinstance(one, CarbonScheduler)]
    assert tracker._options.pue == 1.2
    assert scheduler._arguments.deadline.total_seconds() == 36 * 3600
