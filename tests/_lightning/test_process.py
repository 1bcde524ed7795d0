import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_green._lightning.process import early_global_rank, gpus_of_job, stop_other_ranks
from tests.helpers.trainers import quiet_trainer


def test_global_rank_of_a_spawned_process_is_known_before_its_strategy_is_set_up(tmp_path, monkeypatch):
    trainer = quiet_trainer(tmp_path, devices=2, strategy=DDPStrategy(start_method="spawn"))
    monkeypatch.setenv("LOCAL_RANK", "1")  # as Lightning's launcher sets it
    assert trainer.global_rank == 0
    assert early_global_rank(trainer) == 1
    assert early_global_rank(quiet_trainer(tmp_path)) == 0


def test_other_ranks_are_stopped_by_the_launcher(tmp_path):
    stop_other_ranks(quiet_trainer(tmp_path))  # no launcher, no other ranks
    trainer, sent = quiet_trainer(tmp_path, devices=2, strategy="ddp"), []
    trainer.strategy.launcher.kill = sent.append
    stop_other_ranks(trainer)
    assert sent == [15]


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, ["0", "2"]), ("5,6,7", ["5", "7"]), ("GPU-a, GPU-b, GPU-c", ["GPU-a", "GPU-c"])]
)
def test_gpus_are_named_as_in_cuda_visible_devices(visible, expected, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    trainer = quiet_trainer(tmp_path)
    assert gpus_of_job(trainer) is None
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(type(trainer.strategy), "root_device", torch.device("cuda", 0))
    monkeypatch.setattr(type(trainer), "device_ids", [0, 2])
    assert gpus_of_job(trainer) == expected
