import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from typer.testing import CliRunner

from lightning_green.cli.main import app
from tests.helpers.bright_quarter import Data, Model
from tests.helpers.compression_networks import SmallResNet

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(
    any(
        importlib.util.find_spec(n) is None
        for n in ("onnx", "onnxscript", "onnxruntime", "torch_pruning", "codecarbon")
    ),
    reason="needs the extra `compression`: torch-pruning, onnx, onnxscript, onnxruntime",
)


def checkpoint_of(folder, epochs):
    torch.manual_seed(0)
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Model()
    trainer.fit(module, datamodule=Data())
    trainer.save_checkpoint(folder / "trained.ckpt")
    return folder / "trained.ckpt", trainer


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path, trainer = checkpoint_of(tmp_path_factory.mktemp("trained"), 10)
    assert trainer.test(trainer.lightning_module, datamodule=Data(), verbose=False)[0]["accuracy"] > 0.9
    return path


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    return checkpoint_of(tmp_path_factory.mktemp("untrained"), 0)[0]


def compress(*arguments):
    command = [sys.executable, "-m", "lightning_green", "compress", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400, check=False)


def refused(*arguments):
    """Call the command in this process; return its exit code and what it prints to stderr."""
    result = CliRunner().invoke(app, ["compress", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stderr


CLASSES = ("--model", "tests.helpers.bright_quarter:Model", "--data", "tests.helpers.bright_quarter:Data")


@pytest.mark.slow
def test_compress_prunes_distills_quantizes_and_reports(checkpoint, tmp_path):
    done = compress(
        checkpoint, *CLASSES, "--network", "network", "--prune", 0.5, "--int8", "--distill", "--epochs", 4,
        "--out", tmp_path / "out", "--round-to", 2, "--grid", 100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    before, after = report["before"], report["after"]
    assert after["parameters"] <= 0.5 * before["parameters"]
    assert after["macs"] < 0.7 * before["macs"]
    assert after["weight_mb"] < 0.25 * before["weight_mb"]
    assert after["joules_per_answer_modelled"] < 0.3 * before["joules_per_answer_modelled"]
    assert before["accuracy"] > 0.9
    assert after["accuracy"] > 0.8
    assert report["agreement"] > 0.95
    assert report["compression"]["gco2e"] == pytest.approx(100 * report["compression"]["kwh"])
    assert "int8 and fake quantization agree" in done.stdout
    assert ("slower than the original" in done.stdout) == (after["latency_ms"] > before["latency_ms"])
    assert str(tmp_path / "out" / "compressed.onnx") in done.stdout
    state = torch.load(tmp_path / "out" / "compressed.ckpt", weights_only=True)["state_dict"]
    assert sum(v.numel() for k, v in state.items() if k in dict(Model().named_parameters())) == after["parameters"]
    assert state.keys() == {f"network.{key}" for key in SmallResNet(16).state_dict()}


@pytest.mark.sampled(every=2)
@pytest.mark.slow
@pytest.mark.parametrize("model", ["ByName", "Dictionary"])
def test_compress_accepts_networks_called_by_keyword_and_with_other_outputs(checkpoint, tmp_path, model):
    classes = ("--model", f"tests.helpers.bright_quarter:{model}", "--data", "tests.helpers.bright_quarter:Data")
    done = compress(checkpoint, *classes, "--network", "network", "--int8", "--out", tmp_path / "out", "--grid", 100)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["after"]["accuracy"] > 0.8


def test_network_that_computes_its_loss_in_tests_is_refused_before_the_training(untrained, tmp_path):
    classes = ("--model", "tests.helpers.bright_quarter:Labeled", "--data", "tests.helpers.bright_quarter:Data")
    code, printed = refused(untrained, *classes, "--network", "network", "--int8", "--out", tmp_path / "out")
    assert code == 1, printed
    assert "`--network` should be a network that computes no loss from labels in tests" in printed
    assert not (tmp_path / "out" / "compressed.ckpt").exists()


def test_checkpoint_with_a_class_among_the_hyperparameters_prints_one_line(untrained, tmp_path):
    content = torch.load(untrained, weights_only=True)
    content["hyper_parameters"] = {"optimizer": torch.optim.AdamW}
    torch.save(content, tmp_path / "class.ckpt")
    code, printed = refused(tmp_path / "class.ckpt", *CLASSES, "--int8", "--out", tmp_path)
    assert code == 2, printed
    assert "such as a class among the hyperparameters, and is not loaded" in printed
    assert "pass `--trust-checkpoint`" in printed
    code, printed = refused(
        tmp_path / "class.ckpt", *CLASSES, "--trust-checkpoint", "--prune", "0.99", "--out", tmp_path
    )
    assert code == 1, printed  # it was loaded, and cannot be pruned as much


@pytest.mark.nightly
@pytest.mark.slow
def test_compress_accepts_classes_of_pytorch_lightning(checkpoint, tmp_path, monkeypatch):
    source = (ROOT / "tests" / "helpers" / "bright_quarter.py").read_text()
    (tmp_path / "other_package.py").write_text(source.replace("lightning.pytorch", "pytorch_lightning"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    classes = ("--model", "other_package:Model", "--data", "other_package:Data")
    done = compress(checkpoint, *classes, "--network", "network", "--int8", "--out", tmp_path / "out", "--grid", 100)
    assert done.returncode == 0, done.stderr[-2000:]
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["after"]["accuracy"] > 0.8


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((*CLASSES,), 2, "Nothing to do. Pass --prune FRACTION, --int8, or both."),
        ((*CLASSES, "--prune", 1.2), 2, r"`--prune` should be a fraction in [0, 1), got 1.2."),
        (("--model", "tests.helpers.bright_quarter", "--data", "x:Y", "--int8"), 2, "`--model` should be module:Class"),
        (("--model", "tests.helpers.bright_quarter:Nothing", "--data", "x:Y", "--int8"), 2, "cannot be imported"),
        ((*CLASSES, "--int8", "--model-args", "[1]"), 2, "`--model-args` should be a JSON object"),
        ((*CLASSES, "--int8", "--model-args", '{"width": 3}'), 2, "Pass its arguments with --model-args."),
    ],
)
def test_invalid_usage_prints_one_line_and_exits(untrained, tmp_path, arguments, code, message):
    found, printed = refused(untrained, *arguments, "--out", tmp_path)
    assert found == code, printed
    assert message in printed
