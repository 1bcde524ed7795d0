"""Fallback, autocast cache and use of ``GreenMixedPrecision``."""

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch

from lightning_green import EmissionsTracker, GreenMixedPrecision
from lightning_green.precision.choice import NAMES
from tests.helpers.ledgers import read_records
from tests.helpers.precision_fits import Lit, fit, trainer
from tests.helpers.precision_ranks import assert_two_ranks_match_one


def test_repeated_overflow_falls_back_and_is_recorded(tmp_path):
    plugin = GreenMixedPrecision("fp16", max_consecutive_skips=3, fallback="fp32")
    with pytest.warns(UserWarning, match="3 consecutive steps overflowed, so training continues in 32-true") as caught:
        module, _ = fit(
            plugin,
            Lit("sgd", {2, 3, 4}),
            callbacks=[EmissionsTracker(meter=50.0)],
            default_root_dir=tmp_path,
            enable_checkpointing=False,
        )
    assert sum("overflowed" in str(warning.message) for warning in caught) == 1
    assert (plugin.precision, plugin.scaler, plugin.fell_back_from) == ("32-true", None, "16-mixed")
    (ledger,) = tmp_path.rglob("ledger.*.jsonl")
    (event,) = [record for record in read_records(ledger.parent) if record["event"] == "precision_fallback"]
    assert (event["before"], event["after"], event["skipped_steps"]) == ("16-mixed", "32-true", 3)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_scale_below_the_minimum_falls_back():
    plugin = GreenMixedPrecision("fp16", init_scale=4.0, min_scale=2.0, fallback="bf16")
    with pytest.warns(UserWarning, match="the loss scale fell to 1, below `min_scale` 2"):
        fit(plugin, Lit("sgd", {2, 4}))
    assert plugin.precision == "bf16-mixed"


def test_test_and_predict_use_the_precision():
    bf16 = trainer(GreenMixedPrecision("bf16"))
    assert bf16.test(Lit(), verbose=False)[0]["loss"] > 0
    assert bf16.predict(Lit())[0].dtype is torch.bfloat16
    assert trainer(GreenMixedPrecision("fp32")).predict(Lit())[0].dtype is torch.float32


@pytest.mark.slow
def test_plugin_from_a_yaml_config(tmp_path):
    pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse")
    plugins = [
        {"class_path": "lightning_green.GreenMixedPrecision", "init_args": {"precision": "bf16", "keep_fp32": ["head"]}}
    ]
    options = {"plugins": plugins, "accelerator": "cpu", "max_steps": 2, "logger": False, "enable_checkpointing": False}
    (tmp_path / "c.yaml").write_text(json.dumps({"trainer": options}))
    script = (
        "from lightning.pytorch.cli import LightningCLI; "
        "from tests.helpers.precision_fits import Lit; LightningCLI(Lit)"
    )
    command = [sys.executable, "-c", script, "fit", "--config", str(tmp_path / "c.yaml")]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "`Trainer.fit` stopped: `max_steps=2` reached" in done.stderr + done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_fused_step_on_a_gpu_does_not_synchronize(precision):
    plugin = GreenMixedPrecision(precision)

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_):
            torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, *_):
            torch.cuda.set_sync_debug_mode("default")

    fit(plugin, Lit("adamw-fused"), accelerator="gpu", devices=1, gradient_clip_val=0.05, callbacks=[Watch()])
    assert plugin.precision == NAMES[precision]


@pytest.mark.distributed
@pytest.mark.slow
def test_overflow_on_one_ddp_rank_skips_the_step_of_both(tmp_path):
    assert_two_ranks_match_one("ddp", "fp16", tmp_path)
