from datetime import timedelta
from functools import partial

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from lightning_green._lightning.process import (
    after_environment,
    early_global_rank,
    gpus_of_job,
    is_spawned,
    process_group_store,
    process_group_timeout,
    report_exceptions,
    send_to_script,
    stop_other_ranks,
)
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


@pytest.fixture
def spawned(tmp_path):
    """Return a Trainer as it is in a spawned process."""
    return quiet_trainer(tmp_path, devices=2, strategy=DDPStrategy(start_method="spawn"))


def test_object_is_sent_to_the_script_with_the_results_of_a_spawned_process(spawned, tmp_path):
    send_to_script(spawned, "a run")
    results = spawned.strategy.launcher.get_extra_results(spawned)
    assert results["lightning_green"] == "a run"
    assert "callback_metrics_bytes" in results
    send_to_script(quiet_trainer(tmp_path), "a run")  # no launcher


def test_exception_is_reported_in_a_spawned_process_only(spawned, tmp_path):
    found = []
    for trainer in (spawned, quiet_trainer(tmp_path)):
        trainer._run_stage = stage = partial(int, "no number")
        undo = report_exceptions(trainer, found.append)
        with pytest.raises(ValueError, match="no number"):
            trainer._run_stage()
        undo()
        assert trainer._run_stage is stage
    assert [type(one) for one in found] == [ValueError]
    assert (is_spawned(spawned), is_spawned(trainer)) == (True, False)


def test_function_is_called_once_after_the_environment_is_set_up(tmp_path):
    trainer, called = quiet_trainer(tmp_path), []
    trainer.strategy.setup_environment = lambda: called.append("environment")
    after_environment(trainer, lambda: called.append("after"))
    trainer.strategy.setup_environment()
    trainer.strategy.setup_environment()
    assert called == ["environment", "after", "environment"]


def test_process_group_has_the_timeout_of_the_strategy(spawned, tmp_path):
    assert process_group_timeout(spawned) == timedelta(minutes=30)
    assert process_group_timeout(quiet_trainer(tmp_path)) is None
    assert process_group_store() is None


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
