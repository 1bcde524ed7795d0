"""The gradient buckets of DDP, with one process."""

import os
import time
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lightning_green._lightning.ddp import (
    bucket_layout,
    communication_hooks,
    ddp_model,
    set_bucket_layout,
    why_layout_unknown,
)
from lightning_green.strategies.lost_ranks import is_communication_error


class Net(nn.Module):
    """Uses its layers in the opposite order of their definition, so the order of the gradients is another one."""

    def __init__(self, sparse=False):
        super().__init__()
        self.last, self.middle, self.first = nn.Linear(8, 3), nn.Linear(8, 8), nn.Linear(8, 8)
        self.table = nn.Embedding(5, 8, sparse=sparse)

    def forward(self, numbers):
        return self.last(self.middle(self.first(self.table(numbers)))).square().mean()


@pytest.fixture(autouse=True)
def group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def trainer_of(net, **options):
    strategy = SimpleNamespace(
        model=DistributedDataParallel(net, bucket_cap_mb=0.0005, **options), root_device=torch.device("cpu")
    )
    return SimpleNamespace(strategy=strategy, world_size=3)


def step(trainer):
    trainer.strategy.model(torch.tensor([1, 4])).backward()


@pytest.mark.parametrize("sparse", [False, True])
def test_new_process_begins_with_the_layout_after_the_first_backward_pass(sparse):
    trained = trainer_of(Net(sparse))
    assert bucket_layout(trained) == []
    step(trained)
    layout = bucket_layout(trained)
    assert sorted(number for bucket in layout for number in bucket) == list(range(7))
    assert len(layout) > 1

    other = trainer_of(Net(sparse))
    before = [parameter.detach().clone() for parameter in other.strategy.model.parameters()]
    assert set_bucket_layout(other, layout)
    assert bucket_layout(other) == layout
    assert all(parameter.grad is None for parameter in other.strategy.model.parameters())
    assert all(map(torch.equal, before, other.strategy.model.parameters()))
    step(other)
    assert bucket_layout(other) == layout


def test_layout_is_known_in_every_later_step():
    trainer, layouts = trainer_of(Net()), []
    for number in range(25):
        step(trainer)
        if number != 1:
            layouts.append(bucket_layout(trainer))
    assert layouts == layouts[:1] * len(layouts)
    assert layouts[0]


def test_layout_that_is_first_asked_for_after_many_steps_is_known():
    trainer = trainer_of(Net())
    for _ in range(25):
        step(trainer)
    assert bucket_layout(trainer)


def test_any_order_can_be_set_and_gradients_are_kept():
    trainer = trainer_of(Net(), gradient_as_bucket_view=True)
    order = [3, 0, 6, 2, 5, 1, 4]
    gradients = [torch.ones_like(parameter) for parameter in trainer.strategy.model.parameters()]
    for parameter, gradient in zip(trainer.strategy.model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    set_bucket_layout(trainer, [[number] for number in order])
    assert [number for bucket in bucket_layout(trainer) for number in bucket] == order
    assert all(parameter.grad.eq(1).all() for parameter in trainer.strategy.model.parameters())


def test_other_size_of_the_buckets_is_noticed():
    trained = trainer_of(Net())
    step(trained)
    model = DistributedDataParallel(Net())  # one bucket
    other = SimpleNamespace(strategy=SimpleNamespace(model=model, root_device=torch.device("cpu")))
    assert not set_bucket_layout(other, bucket_layout(trained))


def test_layout_that_never_changes_is_not_set():
    trainer = trainer_of(Net(), find_unused_parameters=True)
    step(trainer)
    step(trainer)
    assert bucket_layout(trainer) == []
    assert set_bucket_layout(trainer, [])


def test_static_graph_is_reported_for_more_than_two_ranks_and_for_hooks():
    trainer = trainer_of(Net(), static_graph=True)
    assert "static_graph" in why_layout_unknown(trainer)
    trainer.world_size = 2
    assert why_layout_unknown(trainer) is None
    trainer.strategy.model.register_comm_hook({"n": 1}, lambda state, bucket: None)
    assert "static_graph" in why_layout_unknown(trainer)
    assert [state for _, state in communication_hooks(trainer)] == [{"n": 1}]
    assert why_layout_unknown(trainer_of(Net())) is None


def test_model_without_ddp_has_no_layout():
    trainer = SimpleNamespace(strategy=SimpleNamespace(model=Net()))
    assert ddp_model(trainer) is None
    assert bucket_layout(trainer) == []
    assert communication_hooks(trainer) == []
    assert why_layout_unknown(trainer) is None
    assert set_bucket_layout(trainer, [])
    assert not set_bucket_layout(trainer, [[0]])


def test_parameters_without_a_gradient_in_the_last_step_are_no_error():
    trainer = trainer_of(Net())
    model = trainer.strategy.model
    model(torch.tensor([1]))
    model.module.last(torch.zeros(1, 8)).sum().backward()
    assert bucket_layout(trainer) == []


def ask_for_the_layout(rank, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store2", rank=rank, world_size=2)
    trainer = trainer_of(Net())
    step(trainer)
    dist.barrier()
    if rank == 1:
        os._exit(0)
    time.sleep(0.5)
    try:
        (folder / "result").write_text(f"layout {bucket_layout(trainer)}")
    except RuntimeError as error:
        (folder / "result").write_text(f"error {is_communication_error(error)}")
    os._exit(0)


@pytest.mark.distributed
@pytest.mark.slow
def test_lost_rank_is_an_error(tmp_path):
    mp.spawn(ask_for_the_layout, (tmp_path,), nprocs=2)
    assert (tmp_path / "result").read_text() == "error True"
