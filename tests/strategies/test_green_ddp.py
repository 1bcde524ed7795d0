"""Arguments, registration and limits of the strategy, with one process."""

import subprocess
import sys

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LearningRateFinder, OnExceptionCheckpoint
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.strategies import StrategyRegistry
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from lightning_green import GreenDDPStrategy
from lightning_green.strategies.gradient_communication import GradientCommunication, parameter_names
from lightning_green.strategies.green_ddp import STATE_KEY, check_not_sharded
from tests.helpers.processes import environment


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compression": "int8"}, "`compression` should be one of 'bf16', 'fp16', 'low_rank', got 'int8'"),
        ({"compression_rank": 0}, "`compression_rank` should be an integer of at least 1, got 0"),
        ({"start_compression_at_step": -1}, "`start_compression_at_step` should be an integer of at least 0, got -1"),
        ({"start_averaging_at_step": "5"}, "`start_averaging_at_step` should be an integer of at least 0, got '5'"),
        ({"average_every": 0}, "`average_every` should be an integer of at least 1, got 0"),
        ({"joules_per_byte": -1.0}, "`joules_per_byte` should be a number of at least 0, got -1.0"),
        ({"compression": "low_rank", "average_every": 4}, "`average_every` should be None with"),
    ],
)
def test_wrong_argument_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        GreenDDPStrategy(**arguments)


def test_communication_hook_of_the_script_is_refused():
    with pytest.raises(TypeError, match="`ddp_comm_hook` should be passed to `DDPStrategy`"):
        GreenDDPStrategy(ddp_comm_hook=print)


def test_arguments_of_ddp_are_passed_on():
    trainer = pl.Trainer(
        strategy=GreenDDPStrategy(find_unused_parameters=True, bucket_cap_mb=3),
        accelerator="cpu",
        devices=2,
        logger=False,
    )
    assert trainer.strategy._ddp_kwargs == {"find_unused_parameters": True, "bucket_cap_mb": 3}


def test_names_are_registered():
    assert StrategyRegistry.get("ddp_green").options.compression == "bf16"
    assert StrategyRegistry.get("ddp_green_low_rank").options.compression == "low_rank"
    trainer = pl.Trainer(strategy="ddp_green", accelerator="cpu", devices=2, logger=False)
    assert isinstance(trainer.strategy, GreenDDPStrategy)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "registered"),
    [
        ("import lightning.pytorch, lightning_green", True),
        ("from lightning_green import EmissionsTracker", True),
        ("from lightning_green.callbacks import EmissionsTracker", True),
        ("import lightning_green, lightning.pytorch", False),
    ],
)
def test_names_are_registered_by_an_import(code, registered):
    code += "; from lightning.pytorch.strategies import StrategyRegistry as s; print('ddp_green' in s)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == str(registered)


def test_import_of_the_package_alone_imports_no_torch():
    code = "import sys, lightning_green; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


@pytest.mark.parametrize(
    "strategy",
    [
        "ddp_green_low_rank",
        {"class_path": "lightning_green.GreenDDPStrategy", "init_args": {"compression": "low_rank"}},
    ],
)
def test_strategy_of_a_command_line_interface(strategy):
    arguments = {"trainer": {"strategy": strategy, "accelerator": "cpu", "devices": 2, "logger": False}}
    cli = LightningCLI(BoringModel, args=arguments, run=False, save_config_callback=None)
    assert cli.trainer.strategy.options.compression == "low_rank"


@pytest.fixture
def group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_sharded_model_is_refused(group):
    model = nn.Sequential(nn.Linear(4, 4))
    check_not_sharded(model)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(
        ValueError, match=r"cannot train a sharded model.* use `FSDPStrategy` or `ModelParallelStrategy`"
    ):
        check_not_sharded(model)


def test_names_are_the_same_for_compiled_parts():
    plain = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    names = list(parameter_names(plain).values())
    compiled = nn.Sequential(torch.compile(plain[0]), plain[1])
    assert list(parameter_names(compiled).values()) == names == ["0.weight", "0.bias", "1.weight", "1.bias"]


def test_shared_parameter_has_one_name():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].weight = model[0].weight
    assert list(parameter_names(model).values()) == ["0.weight", "0.bias", "1.bias"]


class Model(BoringModel):
    lr = 0.1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


def fit(tmp_path, strategy, **options):
    pl.seed_everything(0)
    options = {"logger": False, "enable_progress_bar": False, "limit_val_batches": 0, **options}
    path = options.pop("ckpt_path", None)
    trainer = pl.Trainer(accelerator="cpu", devices=1, strategy=strategy, default_root_dir=tmp_path, **options)
    try:
        trainer.fit(Model(), ckpt_path=path)
    finally:
        torch.distributed.destroy_process_group()
    return trainer


def test_unused_parameters_have_no_low_rank(tmp_path):
    strategy = GreenDDPStrategy("low_rank", find_unused_parameters=True)
    with pytest.raises(ValueError, match=r"`find_unused_parameters=True`.*`compression=\"bf16\"`"):
        fit(tmp_path, strategy, max_steps=1)


def test_errors_leave_the_loss_scale_when_the_precision_has_none(group):
    communication = GradientCommunication(nn.Linear(4, 4), GreenDDPStrategy("low_rank").options, size=1)
    communication.set_loss_scale(1024.0)
    communication.low_rank.errors["weight"] = torch.full((4, 4), 1024.0)
    communication.set_loss_scale(1.0)  # a checkpoint of fp16 in a training with bf16
    assert torch.equal(communication.low_rank.errors["weight"], torch.ones(4, 4))


def test_tuner_leaves_no_steps_behind(tmp_path):
    strategy = GreenDDPStrategy("low_rank", start_compression_at_step=3)
    trainer = fit(tmp_path, strategy, max_steps=4, callbacks=[LearningRateFinder(num_training_steps=6)])
    assert trainer.strategy.communication.step == 4
    assert trainer.strategy._loaded is None


def test_checkpoint_after_an_exception_needs_no_other_rank(tmp_path, monkeypatch):
    class Fails(pl.Callback):
        def on_train_batch_end(self, *_):
            raise RuntimeError("out of memory")

    def wait(*_, **__):
        raise AssertionError("a rank that has failed does not take part")

    monkeypatch.setattr(GradientCommunication, "mean_state", wait)
    saves = OnExceptionCheckpoint(tmp_path)
    with pytest.raises(RuntimeError, match="out of memory"):
        fit(tmp_path, GreenDDPStrategy("low_rank"), max_steps=4, callbacks=[saves, Fails()])
    assert STATE_KEY in torch.load(saves.ckpt_path, weights_only=True)


def test_single_process_trains_without_compression(tmp_path):
    results = []
    for strategy in ("ddp", GreenDDPStrategy("low_rank", compression_rank=1)):
        pl.seed_everything(0)
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = pl.Trainer(
            max_steps=5, accelerator="cpu", devices=1, strategy=strategy, limit_val_batches=0, **options
        )
        model = BoringModel()
        trainer.fit(model)
        results.append(model.layer.weight.detach())
        torch.distributed.destroy_process_group()
    assert torch.equal(*results)
    assert trainer.strategy.communication.metrics()["communication/bytes_per_step"] == 0.0
