import copy

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch.nn import functional

from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.compression import Ramp
from lightning_green.compression.distillation import losses as losses_of
from tests.helpers.compression_fits import (
    Lit,
    assert_equal,
    assert_resumes_exactly,
    fit,
    loader,
)
from tests.helpers.distillation_fits import (
    LitMasked,
    Masked,
    teacher,
)


def test_student_approaches_the_teacher_which_is_not_part_of_the_module(tmp_path):
    net = teacher().eval()
    before = copy.deepcopy(net.state_dict())
    x = next(iter(loader(48, 48)))[0]

    def distance(module):
        with torch.no_grad():
            return losses_of.soft_targets(module.eval().net(x), net(x), 4.0).item()

    alone, _ = fit(tmp_path, Callback(), epochs=6)
    callback = KnowledgeDistillation(net, {"soft_targets": 4.0})
    module, t = fit(tmp_path, callback, epochs=6)
    assert distance(module) < 0.5 * distance(alone)
    assert t.callback_metrics["distillation/soft_targets"] > 0
    assert_equal(dict(net.state_dict()), dict(before))
    assert module.state_dict().keys() == Lit().state_dict().keys()
    assert "training_step" not in module.__dict__
    parameters = {id(p) for g in t.optimizers[0].param_groups for p in g["params"]}
    assert not parameters & {id(p) for p in net.parameters()}


def test_loss_is_the_weighted_sum(tmp_path):
    seen = {}

    class Watch(Callback):
        def on_before_backward(self, trainer, pl_module, loss):
            if trainer.global_step == 2:
                seen["total"] = loss.item()

    class Plain(Lit):
        def training_step(self, batch, batch_idx):
            output = self.net(batch[0])
            task = functional.cross_entropy(output, batch[1])
            with torch.no_grad():
                logits = net(batch[0])
            if self.global_step == 2:
                seen["parts"] = (
                    task.item(),
                    losses_of.soft_targets(output, logits, 3.0).item(),
                    losses_of.decoupled(output, logits, batch[1], 3.0).item(),
                )
            return {"loss": task, "output": output.detach()}

    net = teacher().eval()
    weights = {"soft_targets": 2.0, "decoupled": Ramp(1.0, 0.0)}
    callback = KnowledgeDistillation(net, weights, temperature=3.0, task_weight=0.5)
    fit(tmp_path, callback, Watch(), module=Plain(), epochs=2)
    task, soft, decoupled = seen["parts"]
    assert seen["total"] == pytest.approx(0.5 * task + 2 * soft + (1 - 2 / 12) * decoupled, rel=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: KnowledgeDistillation(teacher(), {"standardized": Ramp(4.0, 1.0), "relational": 0.1}),
        lambda: KnowledgeDistillation(teacher(), cache="memory"),
        lambda: KnowledgeDistillation(teacher(), {"hint": 1.0, "attention": 10.0}, layers={"block": "block"}),
    ],
)
def test_training_resumes_exactly(tmp_path, make):
    _, state = assert_resumes_exactly(tmp_path, lambda: [make()], steps=(1, 6, 8, 13))
    assert not any("teacher" in key or "adapter" in key for key in state["state_dict"])


def test_hint_loss_trains_an_adapter(tmp_path):
    callback = KnowledgeDistillation(teacher(), {"hint": 1.0}, layers={"block": "block"})
    fit(tmp_path, callback, epochs=8)
    assert callback.losses.adapters.layers["block"].shape == (16, 8)
    first = torch.randn(16, 8, generator=torch.Generator().manual_seed(0)) / 8**0.5
    assert not torch.allclose(callback.losses.adapters.layers["block"], first)


class WithMetric(LitMasked):
    """The task's loss has no gradient, and the last call is one for a metric."""

    def training_step(self, batch, batch_idx):
        loss = 0 * self.net(batch[0]).sum()
        with torch.no_grad():
            self.log("clean", functional.cross_entropy(self.net(batch[0]), batch[1]))
        return loss


def test_calls_without_gradients_are_not_distilled(tmp_path):
    module = WithMetric()
    before = module.net.fc.weight.detach().clone()
    fit(tmp_path, KnowledgeDistillation(Masked()), module=module, epochs=1)
    assert not torch.equal(module.net.fc.weight, before)

    class OnlyMetric(WithMetric):
        def training_step(self, batch, batch_idx):
            with torch.no_grad():
                self.net(batch[0])
            return self.net.fc.weight.sum()

    with pytest.raises(ValueError, match="it was not called with gradients"):
        fit(tmp_path, KnowledgeDistillation(Masked()), module=OnlyMetric())
