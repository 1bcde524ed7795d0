import pytest
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn

from lightning_green.callbacks.distillation import KnowledgeDistillation
from tests.helpers.compression_fits import Lit, Net, SaveAt, fit
from tests.helpers.distillation_fits import LitMasked, LitPositional, Masked, outputs, record_logits, teacher


@pytest.mark.parametrize("inner", [True, False])
def test_teacher_is_loaded_from_a_checkpoint(tmp_path, inner):
    big = Lit(width=16)
    fit(tmp_path, SaveAt(tmp_path, (3,)), module=big, epochs=1)
    if not inner:
        state = torch.load(tmp_path / "3.ckpt", weights_only=True)["state_dict"]
        torch.save({k.removeprefix("net."): v for k, v in state.items() if "net." in k}, tmp_path / "3.ckpt")
    callback = KnowledgeDistillation(tmp_path / "3.ckpt", teacher_model=Net(16))
    seen = record_logits(callback)
    fit(tmp_path, callback, epochs=1)
    saved = torch.load(tmp_path / "3.ckpt", weights_only=True)
    saved = saved["state_dict"] if inner else saved
    expected = Net(16)
    expected.load_state_dict({k.removeprefix("net."): v for k, v in saved.items() if k != "causal_mask"})
    torch.testing.assert_close([theirs for _, theirs in seen], outputs(expected.eval()))
    with pytest.raises(ValueError, match="`teacher_model` should be the network of"):
        KnowledgeDistillation(tmp_path / "3.ckpt", teacher_model=nn.Linear(3, 3))


def test_teacher_is_a_callable(tmp_path):
    net = teacher().eval()
    callback = KnowledgeDistillation(lambda x: net(x))
    seen = record_logits(callback)
    fit(tmp_path, callback, epochs=1)
    torch.testing.assert_close([theirs for _, theirs in seen], outputs(net))


@pytest.mark.parametrize("trainer_precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_teacher_computes_in_its_own_precision(tmp_path, precision, trainer_precision):
    net = teacher()
    callback = KnowledgeDistillation(net, precision=precision)
    seen = record_logits(callback)
    fit(tmp_path, callback, epochs=1, precision=trainer_precision)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        expected = [logits.float() for logits in outputs(net.eval())]
    torch.testing.assert_close([theirs for _, theirs in seen], expected)
    in_32_bits = zip(seen, outputs(net), strict=True)
    assert all(torch.equal(theirs, full) == (precision == "32") for (_, theirs), full in in_32_bits)


class MaskedTeacher(Masked):
    """A teacher whose second argument is another one."""

    def forward(self, x, segments=None, mask=None):
        assert segments is None
        return super().forward(x, mask)


def test_teacher_receives_arguments_by_keyword(tmp_path):
    net = MaskedTeacher()
    callback = KnowledgeDistillation(net)
    seen = record_logits(callback)
    fit(tmp_path, callback, module=LitMasked(), epochs=1)
    assert all(torch.equal(theirs, net.fc.bias.expand(8, 4)) for _, theirs in seen)  # the mask is zero


def test_teacher_that_does_not_accept_the_arguments_raises_before_the_first_step(tmp_path):
    module = LitMasked()
    before = module.net.fc.weight.clone()
    with pytest.raises(ValueError, match=r"`teacher` should accept .* \(x, mask\), but it cannot: .*'mask'"):
        fit(tmp_path, KnowledgeDistillation(Net()), module=module)
    assert torch.equal(module.net.fc.weight, before)


class WithStem(nn.Module):
    def __init__(self, stem):
        super().__init__()
        self.stem, self.dropout, self.head = stem, nn.Dropout(0.5), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.dropout(torch.relu(self.stem(x.flatten(1)))))


class Modes(Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.modes = {module.training for module in pl_module.net.modules()}


def test_layers_shared_with_the_teacher_are_trained(tmp_path):
    stem, watch = nn.Sequential(nn.Linear(192, 16), nn.BatchNorm1d(16)), Modes()
    student, net = WithStem(stem), WithStem(stem)
    before = stem[0].weight.detach().clone()
    callback = KnowledgeDistillation(net, {"standardized": 1.0, "hint": 1.0}, layers={"stem": "stem"})
    _, t = fit(tmp_path, callback, watch, module=LitPositional(student), epochs=1)
    assert stem[0].weight.requires_grad
    assert not torch.equal(stem[0].weight, before)
    assert watch.modes == {True}
    assert stem[1].num_batches_tracked == 6  # the teacher's calls are in evaluation mode
    assert t.callback_metrics["distillation/hint"] > 0  # features of training mode and of evaluation mode
