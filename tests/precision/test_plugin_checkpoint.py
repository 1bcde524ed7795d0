"""Checkpoints: the scale, a fallback, and exchange with Lightning's plugin."""

import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision

from lightning_green import GreenFSDPPrecision, GreenMixedPrecision
from tests.helpers.precision_fits import Lit, distance, fit


def test_resume_within_a_growth_interval_is_exact(tmp_path):
    def plugin():
        return GreenMixedPrecision("fp16", init_scale=256.0, growth_interval=7)

    def lit():
        return Lit("adamw", {1}, schedule=True)

    whole, _ = fit(plugin(), lit(), max_epochs=2)
    _, stopped = fit(plugin(), lit(), max_epochs=1)
    stopped.save_checkpoint(tmp_path / "a.ckpt")
    state = torch.load(tmp_path / "a.ckpt", weights_only=True)["GreenMixedPrecision"]
    assert state["scaler"]["_growth_tracker"] == 3
    assert state["skipped_steps"] == 1
    resumed = plugin()
    module, _ = fit(resumed, lit(), ckpt_path=tmp_path / "a.ckpt", max_epochs=2)
    assert distance(module, whole) == 0
    assert resumed.skipped_steps == 2


def test_fallback_survives_a_resume(tmp_path):
    with pytest.warns(UserWarning, match="training continues in 32-true"):
        _, made = fit(GreenMixedPrecision("fp16", max_consecutive_skips=2, fallback="fp32"), Lit("sgd", {2, 3}))
    made.save_checkpoint(tmp_path / "a.ckpt")
    plugin = GreenMixedPrecision("fp16", max_consecutive_skips=2, fallback="fp32")
    fit(plugin, Lit("sgd"), ckpt_path=tmp_path / "a.ckpt", max_epochs=2)
    assert (plugin.precision, plugin.skipped_steps, plugin.fell_back_from) == ("32-true", 2, "16-mixed")


@pytest.mark.parametrize("key", ["GreenMixedPrecision", "GreenFSDPPrecision"])
def test_counts_are_loaded_from_the_other_plugin_of_the_package(key):
    scaler = {"scale": 64.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 5, "_growth_tracker": 3}
    own = {"precision": "16-mixed", "scaler": scaler, "fell_back_from": None, "skipped_steps": 7}
    kinds = {"GreenMixedPrecision": GreenFSDPPrecision, "GreenFSDPPrecision": GreenMixedPrecision}
    plugin = kinds[key]("fp16")
    plugin._use("16-mixed", "cpu")
    plugin.on_load_checkpoint({"FSDPPrecision": scaler, "MixedPrecision": scaler, key: own})
    assert (plugin.skipped_steps, plugin.scaler.get_scale()) == (7, 64.0)


def test_checkpoints_are_exchanged_with_lightnings_plugin(tmp_path):
    _, made = fit(GreenMixedPrecision("fp16"), Lit("sgd", {2}))
    made.save_checkpoint(tmp_path / "green.ckpt")
    theirs = MixedPrecision("16-mixed", "cpu")
    _, made = fit(theirs, Lit("sgd"), ckpt_path=tmp_path / "green.ckpt", max_epochs=2)
    assert theirs.scaler.get_scale() == 32768.0
    assert theirs.scaler._get_growth_tracker() == 9 + 12
    made.save_checkpoint(tmp_path / "theirs.ckpt")
    ours = GreenMixedPrecision("fp16")
    fit(ours, Lit("sgd"), ckpt_path=tmp_path / "theirs.ckpt", max_epochs=3)
    assert ours.scaler.get_scale() == 32768.0
    assert ours.scaler._get_growth_tracker() == 9 + 24
