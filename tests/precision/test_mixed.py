import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch._functorch import config as functorch_config
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader

from lightning_green import EmissionsTracker, GreenMixedPrecision
from lightning_green.ledger.ledger import read_ledger
from lightning_green.precision.choice import NAMES, DeviceSupport, choose_precision
from tests.precision.precision_kit import Lit, distance, fit, trainer


@pytest.mark.parametrize(
    ("support", "expected"),
    [
        (DeviceSupport("cuda", True, True, True, True), "bf16-mixed"),
        (DeviceSupport("cuda", True, False, True, True), "16-mixed"),
        (DeviceSupport("cuda", True, False, True, False), "32-true"),
        (DeviceSupport("cpu", True, True, True, False), "bf16-mixed"),
        (DeviceSupport("cpu", True, False, True, False), "32-true"),
        (DeviceSupport("xla", False, True, False, False), "32-true"),
    ],
)
def test_auto_takes_what_is_in_hardware(support, expected):
    assert choose_precision("auto", support)[0] == expected


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16-mixed, because the cpu device has bfloat16 in hardware."),
        ({"avx512_bf16": False, "amx_bf16": True}, "bf16-mixed, because the cpu device has bfloat16 in hardware."),
        ({"avx2": True}, "32-true, because the cpu device has neither bfloat16 nor fast float16 in hardware."),
    ],
)
def test_auto_says_what_it_took_and_why(capabilities, expected, monkeypatch, caplog):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with caplog.at_level("INFO"):
        _, made = fit(GreenMixedPrecision(), limit_train_batches=1)
    assert made.precision == expected.partition(",")[0]
    said = [record.getMessage() for record in caplog.records if "GreenMixedPrecision" in record.getMessage()]
    assert said == [f"GreenMixedPrecision: {expected}"]


def test_bad_arguments_say_what_to_pass():
    with pytest.raises(ValueError, match="`precision` should be one of 'auto', 'bf16', 'fp16', 'fp32', got '16-mixed'"):
        GreenMixedPrecision("16-mixed")
    with pytest.raises(ValueError, match="`fallback` should be one of"):
        GreenMixedPrecision(fallback="fp8")
    with pytest.raises(ValueError, match=r"write \['head'\]"):
        GreenMixedPrecision(keep_fp32="head")
    with pytest.raises(ValueError, match="`max_consecutive_skips` should be 1 or more, got 0"):
        GreenMixedPrecision(max_consecutive_skips=0)
    with pytest.raises(ValueError, match="`min_scale` should be above 0"):
        GreenMixedPrecision(min_scale=0.0)
    with pytest.raises(ValueError, match=r"precision='fp16'` does not run on this device \(cuda\)"):
        choose_precision("fp16", DeviceSupport("cuda", True, False, False, False))
    with pytest.raises(ValueError, match="'tail' matches no module of Lit; its modules are body"):
        fit(GreenMixedPrecision("bf16", keep_fp32=["tail"]))


def test_lbfgs_does_not_go_with_fp16():
    class Module(Lit):
        def configure_optimizers(self):
            return torch.optim.LBFGS(self.parameters())

    with pytest.raises(ValueError, match="LBFGS evaluates the loss several times"):
        fit(GreenMixedPrecision("fp16"), Module())


class Reference(Lit):
    """The same training in float64 on plain torch, without Lightning."""

    def run(self, accumulation, clip, algorithm):
        self.double()
        optimizer = self.configure_optimizers()
        batches = [(x.double(), y) for x, y in self.train_dataloader()]
        for index, (x, y) in enumerate(batches):
            logits = self.head(self.body(x))
            (nn.functional.cross_entropy(logits, y) / accumulation).backward()
            if (index + 1) % accumulation == 0:
                if clip and algorithm == "value":
                    nn.utils.clip_grad_value_(self.parameters(), clip)
                elif clip:
                    nn.utils.clip_grad_norm_(self.parameters(), clip)
                optimizer.step()
                optimizer.zero_grad()
        return self


@pytest.mark.parametrize("optimizer", ["sgd", "sgd-fused", "adamw", "adamw-fused"])
@pytest.mark.parametrize(("clip", "algorithm"), [(None, None), (0.05, "norm"), (0.01, "value")])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_steps_against_float64(optimizer, clip, algorithm, accumulation):
    """With every module kept in float32 only scaling, unscaling, clipping and stepping are left: nearly exact."""
    reference = Reference(optimizer).run(accumulation, clip, algorithm)
    options = {
        "accumulate_grad_batches": accumulation,
        "gradient_clip_val": clip,
        "gradient_clip_algorithm": algorithm,
    }
    exact = ["body", "head", "body.*"]
    for precision in ("fp16", "bf16", "fp32"):
        module, _ = fit(GreenMixedPrecision(precision, keep_fp32=exact), Lit(optimizer), **options)
        assert distance(module, reference) < 5e-5, precision
    for precision, tolerance in (("fp16", 0.02), ("bf16", 0.1)):
        module, _ = fit(GreenMixedPrecision(precision), Lit(optimizer), **options)
        assert 0 < distance(module, reference) < tolerance, precision


@pytest.mark.parametrize("optimizer", ["sgd", "adamw-fused"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_an_overflow_is_a_skipped_step(optimizer, clip):
    plugin = GreenMixedPrecision("fp16")
    module, made = fit(plugin, Lit(optimizer, {3}, schedule=True), limit_train_batches=6, gradient_clip_val=clip)
    assert plugin.skipped_steps == 1
    assert plugin.scaler.get_scale() == 32768.0
    assert made.global_step == 6
    start = 0.05 if optimizer == "sgd" else 0.01
    assert module.rates == pytest.approx([start * 0.5**k for k in (1, 2, 3, 3, 4, 5)])
    assert all(torch.isfinite(p).all() for p in module.parameters())
    # the run that never saw the batch has the same weights
    without = Lit(optimizer, schedule=True)
    batches = [batch for index, batch in enumerate(without.train_dataloader()) if index < 6 and index != 3]
    made = trainer(GreenMixedPrecision("fp16"), gradient_clip_val=clip)
    made.fit(without, DataLoader(batches, batch_size=None))
    assert distance(module, without) < 2e-4


def test_a_late_reading_holds_the_scheduler_one_step_later_also_where_a_checkpoint_comes_first(monkeypatch, tmp_path):
    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                trainer.save_checkpoint(tmp_path / "a.ckpt")

    monkeypatch.setattr(GreenMixedPrecision, "_on_cuda", lambda self: True)
    expected = pytest.approx([0.01 * 0.5**k for k in (1, 2, 3, 4, 4, 5, 6)])
    for callbacks in ([], [Save()]):
        plugin = GreenMixedPrecision("fp16")
        module, _ = fit(plugin, Lit("adamw-fused", {3}, schedule=True), limit_train_batches=7, callbacks=callbacks)
        assert module.rates == expected
        assert plugin.skipped_steps == 1
    plugin = GreenMixedPrecision("fp16")
    rest = Lit("adamw-fused", {3}, schedule=True)
    fit(plugin, rest, ckpt_path=tmp_path / "a.ckpt", limit_train_batches=7)
    assert rest.rates == module.rates[4:]
    assert plugin.skipped_steps == 1


def test_a_scheduler_of_a_lower_frequency_loses_as_many_steps_as_were_skipped():
    module, _ = fit(GreenMixedPrecision("fp16"), Lit("sgd", {1, 2}, True, frequency=2), limit_train_batches=8)
    assert module.rates == pytest.approx([0.05 * 0.5**k for k in (0, 1, 1, 1, 1, 2, 2, 3)])


def test_gradients_are_unscaled_where_a_hook_looks():
    class Module(Lit):
        norms = ()

        def on_before_optimizer_step(self, optimizer):
            self.norms = (*self.norms, torch.stack([p.grad.norm() for p in self.parameters()]).norm().item())

    for optimizer in ("sgd", "adamw-fused"):
        module, _ = fit(GreenMixedPrecision("fp16"), Module(optimizer), gradient_clip_val=0.05)
        assert len(module.norms) == 12
        assert max(module.norms) < 10


def test_counts_and_scale_are_logged(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    logger = CSVLogger(tmp_path)
    fit(GreenMixedPrecision("fp16"), Lit("sgd", {2}), logger=logger, log_every_n_steps=1)
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["precision/loss_scale"]]
    assert [float(row["precision/loss_scale"]) for row in rows] == [65536.0] * 2 + [32768.0] * 10
    assert [float(row["precision/skipped_steps"]) for row in rows] == [0.0] * 2 + [1.0] * 10


def test_repeated_overflow_moves_the_run_and_is_on_record(tmp_path):
    plugin = GreenMixedPrecision("fp16", max_consecutive_skips=3, fallback="fp32")
    with pytest.warns(UserWarning, match="3 steps in a row overflowed, so training goes on in 32-true") as caught:
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
    (event,) = [record for record in read_ledger(ledger.parent) if record["event"] == "precision_fallback"]
    assert (event["before"], event["after"], event["skipped_steps"]) == ("16-mixed", "32-true", 3)
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_scale_under_the_floor_moves_the_run():
    plugin = GreenMixedPrecision("fp16", init_scale=4.0, min_scale=2.0, fallback="bf16")
    with pytest.warns(UserWarning, match="the loss scale fell to 1, under `min_scale` 2"):
        fit(plugin, Lit("sgd", {2, 4}))
    assert plugin.precision == "bf16-mixed"


def test_a_nan_names_its_module(tmp_path):
    class Bad(nn.Module):
        def forward(self, x):
            return x / (x * 0)

    module = Lit("sgd")
    module.body.append(Bad())
    plugin = GreenMixedPrecision("fp32", find_nonfinite=True)
    with pytest.warns(UserWarning, match=r"`body.3` \(Bad; its inputs are finite\)"):
        fit(
            plugin,
            module,
            limit_train_batches=3,
            callbacks=[EmissionsTracker(meter=50.0)],
            default_root_dir=tmp_path,
        )
    (ledger,) = tmp_path.rglob("ledger.*.jsonl")
    (event,) = [record for record in read_ledger(ledger.parent) if record["event"] == "nonfinite_loss"]
    assert "`body.3`" in event["reason"]


def test_kept_modules_compute_in_float32_also_compiled_and_checkpointed():
    seen = {}

    class Module(Lit):
        def forward(self, x):
            x = checkpoint(self.body, x, use_reentrant=False)
            seen["body"] = x.dtype
            x = self.head(x)
            seen["head"] = x.dtype
            return x

    for accumulation in (1, 4):
        fit(
            GreenMixedPrecision("bf16", keep_fp32=["head", nn.LayerNorm]),
            Module(),
            accumulate_grad_batches=accumulation,
        )
        assert seen["head"] is torch.float32
    module = Module()
    module.head = torch.compile(module.head, backend="aot_eager")
    fit(GreenMixedPrecision("bf16", keep_fp32=["head"]), module, limit_train_batches=2)
    assert seen["head"] is torch.float32


@pytest.mark.parametrize("keep", [[], ["head"]])
@pytest.mark.parametrize("accumulation", [1, 4])
def test_a_compiled_module_computes_what_it_computes_without(keep, accumulation):
    options = {"accumulate_grad_batches": accumulation, "limit_train_batches": 8}
    plain, _ = fit(GreenMixedPrecision("bf16", keep_fp32=keep), **options)
    module = Lit()
    torch._dynamo.reset()  # else it takes what it compiled of the same class without the hooks
    trainer(GreenMixedPrecision("bf16", keep_fp32=keep), **options).fit(torch.compile(module, backend="aot_eager"))
    assert distance(module, plain) == 0
    assert functorch_config.backward_pass_autocast == "same_as_forward"  # as it was


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_the_held_cache_changes_nothing(without):
    """Over windows, with a forward of the same weights without gradients before each forward, and evaluations."""

    class Module(Lit):
        def training_step(self, batch, batch_idx):
            with without():
                self(batch[0])
            return super().training_step(batch, batch_idx)

        def validation_step(self, batch, batch_idx):
            self.log("val", self.loss(batch))

        val_dataloader = Lit.train_dataloader

    runs = [
        fit(GreenMixedPrecision("bf16", cache=cache), Module(), accumulate_grad_batches=4, val_check_interval=3)[0]
        for cache in (True, False)
    ]
    assert distance(*runs) == 0
    assert torch.autocast_increment_nesting() == 1  # nothing is held after the fit
    torch.autocast_decrement_nesting()


def test_the_held_cache_sees_an_average_in_the_place_of_the_weights():
    class Module(Lit):
        def validation_step(self, batch, batch_idx):
            seen.append(self(batch[0]).double().sum().item())

        val_dataloader = Lit.train_dataloader

    runs = []
    for cache in (True, False):
        seen = []
        average = EMAWeightAveraging(decay=0.5)
        module, _ = fit(
            GreenMixedPrecision("bf16", cache=cache),
            Module("sgd"),
            accumulate_grad_batches=4,
            val_check_interval=3,
            callbacks=[average],
        )
        runs.append((seen, module))
    assert runs[0][0] == runs[1][0]
    assert distance(runs[0][1], runs[1][1]) == 0


def test_the_held_cache_sees_weights_that_changed():
    class Module(Lit):
        def on_train_batch_end(self, outputs, batch, batch_idx):
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.mul_(0.9)

    runs = [
        fit(GreenMixedPrecision("bf16", cache=cache), Module("sgd"), accumulate_grad_batches=4)[0]
        for cache in (True, False)
    ]
    assert distance(*runs) == 0


def test_test_and_predict_run_in_the_precision():
    made = trainer(GreenMixedPrecision("bf16"))
    assert made.test(Lit(), verbose=False)[0]["loss"] > 0
    assert made.predict(Lit())[0].dtype is torch.bfloat16
    assert trainer(GreenMixedPrecision("fp32")).predict(Lit())[0].dtype is torch.float32


def test_from_a_yaml_of_the_command_line(tmp_path):
    pytest.importorskip("jsonargparse", reason="LightningCLI needs jsonargparse")
    plugins = [
        {"class_path": "lightning_green.GreenMixedPrecision", "init_args": {"precision": "bf16", "keep_fp32": ["head"]}}
    ]
    options = {"plugins": plugins, "accelerator": "cpu", "max_steps": 2, "logger": False, "enable_checkpointing": False}
    (tmp_path / "c.yaml").write_text(json.dumps({"trainer": options}))
    script = "from lightning.pytorch.cli import LightningCLI; from precision_kit import Lit; LightningCLI(Lit)"
    here = Path(__file__).parent
    command = [sys.executable, "-c", script, "fit", "--config", str(tmp_path / "c.yaml")]
    paths = os.pathsep.join([str(here), str(here.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "`Trainer.fit` stopped: `max_steps=2` reached" in done.stderr + done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_fused_step_on_a_gpu_does_not_wait_for_the_device(precision):
    plugin = GreenMixedPrecision(precision)

    class Watch(pl.Callback):
        def on_train_batch_start(self, *_):
            torch.cuda.set_sync_debug_mode("error")

        def on_train_batch_end(self, *_):
            torch.cuda.set_sync_debug_mode("default")

    fit(plugin, Lit("adamw-fused"), accelerator="gpu", devices=1, gradient_clip_val=0.05, callbacks=[Watch()])
    assert plugin.precision == NAMES[precision]
