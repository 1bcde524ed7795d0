"""Changed settings of optimizers and schedulers after a restore."""

from types import SimpleNamespace

import pytest
import torch

from lightning_green.run.changed_values import keep_new_values


def fingerprint(lr=0.1, momentum=0.9, step_size=5):
    group = {"lr": lr, "momentum": momentum, "initial_lr": lr}
    return {"optimizers": [{"groups": [group]}], "schedulers": [{"step_size": step_size}]}


def make_trainer(lr=0.1, momentum=0.9, step_size=5):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=momentum)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size, gamma=0.5)
    return SimpleNamespace(optimizers=[optimizer], lr_scheduler_configs=[SimpleNamespace(scheduler=scheduler)])


def restored(old, new, epochs=0):
    """Return the trainer of a changed script after it has restored the state of the old one after some epochs."""
    before = make_trainer(**old)
    for _ in range(epochs):
        before.optimizers[0].step()
        before.lr_scheduler_configs[0].scheduler.step()
    trainer = make_trainer(**new)
    set_new_values = keep_new_values(trainer, fingerprint(**old), fingerprint(**new))
    trainer.optimizers[0].load_state_dict(before.optimizers[0].state_dict())
    trainer.lr_scheduler_configs[0].scheduler.load_state_dict(before.lr_scheduler_configs[0].scheduler.state_dict())
    set_new_values()
    return trainer


def test_changed_settings_survive_the_restore():
    trainer = restored({"momentum": 0.9, "step_size": 5}, {"momentum": 0.5, "step_size": 3})
    assert trainer.optimizers[0].param_groups[0]["momentum"] == 0.5
    assert trainer.lr_scheduler_configs[0].scheduler.step_size == 3


def test_unchanged_settings_are_restored():
    group = restored({"lr": 0.1}, {"lr": 0.1}, epochs=5).optimizers[0].param_groups[0]
    assert group["lr"] == pytest.approx(0.05)


def test_changed_learning_rate_is_scaled_by_the_progress_of_the_schedule():
    group = restored({"lr": 0.1}, {"lr": 0.4}, epochs=5).optimizers[0].param_groups[0]
    assert group["lr"] == pytest.approx(0.2)
    assert group["initial_lr"] == pytest.approx(0.4)
