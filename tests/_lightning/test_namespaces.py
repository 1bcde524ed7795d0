"""Classes of both packages of Lightning, and errors. ``test_main_job`` and ``test_everything`` train with both."""

import ast
import copy
import pickle
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import pytorch_lightning
import torch
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.cli import SaveConfigCallback
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultMetric
from lightning.pytorch.utilities.exceptions import SIGTERMException

import lightning_green
from lightning_green import (
    EmissionsTracker,
    ExactResume,
    GreenFSDPPrecision,
    GreenMixedPrecision,
    KnowledgeDistillation,
    Pruning,
    QuantizationAwareTraining,
)
from lightning_green._lightning.namespaces import both, check_package, same_package
from tests.helpers.processes import environment

OURS = {
    "tracker": lambda: EmissionsTracker(meter=50.0),
    "resume": ExactResume,
    "pruning": lambda: Pruning(0.5),
    "quantization": QuantizationAwareTraining,
    "distillation": lambda: KnowledgeDistillation(torch.nn.Linear(8, 2)),
    "precision": lambda: GreenMixedPrecision("fp32"),
    "fsdp": lambda: GreenFSDPPrecision("fp32"),
}


@pytest.mark.parametrize("folder", ["loops", "trainer", "strategies", "plugins", "tuner", "loggers", "utilities"])
def test_private_attributes_of_the_other_package_are_the_same(folder):
    """Both packages have the same files; only the order of the imports differs."""
    originals, copies = (Path(package.__file__).parent / folder for package in (pl, pytorch_lightning))
    paths = [path.relative_to(originals) for path in originals.rglob("*.py")]
    assert paths
    for path in paths:
        text = (originals / path).read_text()
        text = text.replace("lightning.pytorch", "pytorch_lightning").replace("lightning.fabric", "lightning_fabric")
        assert sorted(text.splitlines()) == sorted((copies / path).read_text().splitlines()), path


@pytest.mark.parametrize("kind", [pl.Trainer, pl.LightningModule, ModelCheckpoint, SIGTERMException, _ResultMetric])
def test_copy_of_a_class_is_the_one_of_the_other_package(kind):
    original, copied = both(kind)
    assert original is kind
    assert copied is not kind
    assert (copied.__module__, copied.__name__) == (
        kind.__module__.replace("lightning.pytorch", "pytorch_lightning"),
        kind.__name__,
    )


def test_a_class_of_another_package_has_no_copy():
    assert both(torch.nn.Module, ModelCheckpoint) == (torch.nn.Module, ModelCheckpoint, both(ModelCheckpoint)[1])
    assert both(SLURMEnvironment)[1].__module__ == "lightning_fabric.plugins.environments.slurm"


def test_a_module_that_is_not_imported_has_no_copy(monkeypatch):
    monkeypatch.delitem(sys.modules, "pytorch_lightning.cli", raising=False)
    assert both(SaveConfigCallback) == (SaveConfigCallback,)


@pytest.mark.parametrize("owner", ["Trainer", "LightningModule"])
def test_same_package_is_that_of_the_trainer_or_the_module(owner):
    options = {"logger": False, "accelerator": "cpu"} if owner == "Trainer" else {}
    assert same_package(getattr(pl, owner)(**options), _ResultMetric) is _ResultMetric
    assert same_package(getattr(pytorch_lightning, owner)(**options), _ResultMetric) is both(_ResultMetric)[1]
    assert same_package(object(), LearningRateFinder) is LearningRateFinder


@pytest.mark.parametrize("name", ["precision", "fsdp"])
def test_a_plugin_belongs_to_both_packages_and_keeps_its_class(name):
    plugin = OURS[name]()
    assert isinstance(plugin, pl.plugins.Precision)
    assert isinstance(plugin, pytorch_lightning.plugins.Precision)
    declared = getattr(lightning_green, type(plugin).__name__)
    assert isinstance(plugin, declared)
    assert (type(plugin).__qualname__, type(plugin).__module__) == (declared.__qualname__, declared.__module__)
    assert type(copy.deepcopy(plugin)) is type(plugin)
    assert type(pickle.loads(pickle.dumps(plugin))) is type(plugin)


def test_subclass_of_a_script_belongs_to_both_packages():
    class Mine(GreenMixedPrecision):
        def __init__(self):
            super().__init__("fp32")

    class Both(GreenMixedPrecision, pytorch_lightning.plugins.MixedPrecision):
        pass

    assert isinstance(Mine(), pytorch_lightning.plugins.MixedPrecision)
    assert isinstance(copy.deepcopy(Mine()), Mine)
    assert type(Both()) is Both


@pytest.mark.parametrize("name", [name for name in OURS if name not in ("precision", "fsdp")])
def test_a_callback_that_is_not_in_a_list_raises_with_the_fix(name):
    callback = OURS[name]()
    assert callback in pl.Trainer(callbacks=callback, logger=False, accelerator="cpu").callbacks
    fix = rf"write Trainer\(callbacks=\[{type(callback).__name__}\(...\)\]\)"
    with pytest.raises(TypeError, match=fix):
        pytorch_lightning.Trainer(callbacks=callback, logger=False, accelerator="cpu")


class Module(pytorch_lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("name", [name for name in OURS if name != "fsdp"])
def test_another_version_of_the_other_package_raises_when_the_fit_starts(name, monkeypatch, tmp_path):
    monkeypatch.setattr(pytorch_lightning, "__version__", "2.5.0")
    one = OURS[name]()
    trainer = pytorch_lightning.Trainer(
        max_steps=1,
        accelerator="cpu",
        logger=False,
        default_root_dir=tmp_path,
        enable_progress_bar=False,
        enable_model_summary=False,
        **({"plugins": [one]} if name == "precision" else {"callbacks": [one]}),
    )
    fix = "Write `import lightning.pytorch as pl` instead of `import pytorch_lightning as pl`"
    with pytest.raises(RuntimeError, match=f"got 2.5.0 and {pl.__version__}. {fix}"):
        trainer.fit(Module(), torch.utils.data.DataLoader(torch.randn(8, 8)))


def test_another_version_does_not_matter_to_a_trainer_of_lightning(monkeypatch):
    monkeypatch.setattr(pytorch_lightning, "__version__", "2.5.0")
    check_package(pl.Trainer(logger=False, accelerator="cpu"))


def run(script, folder):
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_a_script_of_lightning_does_not_import_the_other_package(tmp_path):
    script = (
        "import sys, lightning_green as g; [getattr(g, name) for name in g.__all__]; "
        "from tests.helpers.trainers import batches, quiet_trainer, RecordingModel; "
        "quiet_trainer('.', g.EmissionsTracker(meter=1.0), plugins=[g.GreenMixedPrecision()])"
        ".fit(RecordingModel(), batches()); "
        "print(sorted(m for m in sys.modules if m.startswith(('pytorch_lightning', 'lightning_fabric'))))"
    )
    assert run(script, tmp_path).endswith("[]\n")


@pytest.mark.slow
def test_a_callback_that_is_created_before_the_import_works(tmp_path):
    script = (
        "from lightning_green import EmissionsTracker; tracker = EmissionsTracker(meter=1.0); "
        "import pytorch_lightning as pl; from pytorch_lightning.demos.boring_classes import BoringModel; "
        "pl.Trainer(callbacks=[tracker], max_steps=3, logger=False, accelerator='cpu').fit(BoringModel()); "
        "print(tracker.summary()['energy/kwh'] > 0)"
    )
    assert run(script, tmp_path).endswith("True\n")


def test_classes_of_lightning_are_checked_in_both_packages():
    """``isinstance(one, Timer)`` is false for the ``Timer`` of the other package; ``both(Timer)`` is right."""
    found = []
    for path in sorted(Path(lightning_green.__file__).parent.rglob("*.py")):
        tree = ast.parse(path.read_text())
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        imports = [node for node in imports if (node.module or "").startswith("lightning.")]
        names = {"pl", *(alias.asname or alias.name for node in imports for alias in node.names)}
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in calls:
            if isinstance(call.func, ast.Name) and call.func.id == "isinstance":
                kinds = call.args[1].elts if isinstance(call.args[1], ast.Tuple) else [call.args[1]]
                if names & {ast.unparse(kind).partition(".")[0] for kind in kinds}:
                    found.append(f"{path.name}: {ast.unparse(call)}")
    assert found == ["namespaces.py: isinstance(trainer, pl.Trainer)"]
