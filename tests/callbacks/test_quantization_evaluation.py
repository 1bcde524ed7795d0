import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import nn

from lightning_green.callbacks.quantization import QuantizationAwareTraining
from tests.helpers.compression_fits import Lit, Net, SaveAt, StepsBefore, fit, images, loader, trainer


class Counting(Callback):
    """Record whether validation runs in fake quantization, and assert that it does not change ranges."""

    def __init__(self, callback):
        self.callback, self.seen = callback, []

    def on_validation_start(self, trainer, pl_module):
        self.counts = self._counts()

    def on_validation_end(self, trainer, pl_module):
        assert self._counts() == self.counts
        self.seen.append("forward" in pl_module.net.__dict__)

    def _counts(self):
        quantized = self.callback.quantized
        return quantized and [r.count for r in quantized.roundings.values()]


def test_validation_is_quantized_and_does_not_update_ranges(tmp_path):
    callback = QuantizationAwareTraining(begin="1ep", freeze="2ep")
    watch = Counting(callback)
    torch.manual_seed(0)
    module = Lit()
    trainer(tmp_path, [watch, callback]).fit(module, loader(), loader(16))
    assert watch.seen == [False, True, True]
    assert {r.count for r in callback.quantized.roundings.values()} == {6}  # the steps of epoch 1 alone


def test_tests_are_quantized_if_the_checkpoint_is(tmp_path):
    callback = QuantizationAwareTraining(begin="1ep")
    best = ModelCheckpoint(tmp_path, monitor="val_loss", save_top_k=-1, filename="{epoch}")
    torch.manual_seed(0)
    module = Lit()
    t = trainer(tmp_path, [callback, best], enable_checkpointing=True)
    t.fit(module, loader(), loader(16))
    (metrics,) = t.test(module, loader(16), ckpt_path="best", verbose=False, weights_only=True)
    assert metrics["val_loss"] == pytest.approx(best.best_model_score.item())
    x, y = next(iter(loader(16, 16)))

    def losses(name):
        state = torch.load(tmp_path / name, weights_only=True)
        plain = Lit()
        plain.load_state_dict(state["state_dict"])
        fresh = QuantizationAwareTraining(begin="1ep")
        other = Lit()
        (metrics,) = trainer(tmp_path, [fresh]).test(
            other, loader(16), ckpt_path=tmp_path / name, verbose=False, weights_only=True
        )
        floating = nn.functional.cross_entropy(plain.eval().net(x), y).item()
        return metrics["val_loss"], floating, fresh, other

    before, floating, fresh, other = losses("epoch=0.ckpt")
    assert before == pytest.approx(floating, abs=1e-6)
    with pytest.raises(ValueError, match="nothing to convert"):
        fresh.convert(other)
    after, floating, fresh, other = losses("epoch=2.ckpt")
    assert after != pytest.approx(floating, abs=1e-6)
    converted = fresh.convert(other)
    assert nn.functional.cross_entropy(converted(x), y).item() == pytest.approx(after, abs=1e-5)


class Sizes(Lit):
    """Validates at another image size."""

    def validation_step(self, batch, batch_idx):
        return super().validation_step((nn.functional.pad(batch[0], (2, 2, 2, 2)), batch[1]), batch_idx)


def test_validation_may_have_another_image_size(tmp_path):
    callback, watch = QuantizationAwareTraining(begin="1ep"), ValidationLoss()
    torch.manual_seed(0)
    module = Sizes()
    trainer(tmp_path, [callback, watch], num_sanity_val_steps=2).fit(module, loader(), loader(16))
    assert len(watch.losses) == 3
    assert callback.agreement(callback.convert(module), module, [images()]).difference < 1e-3


class ValidationLoss(Callback):
    def __init__(self):
        self.losses = []

    def on_validation_epoch_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.losses.append(trainer.callback_metrics["val_loss"].item())


class TwoViews(Net):
    def forward(self, x, flip=False):
        return super().forward(x) + super().forward(x.flip(3)) if flip else super().forward(x)


class LitTwoViews(Lit):
    def __init__(self):
        super().__init__()
        self.net = TwoViews()

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0], flip=True), batch[1]))


@pytest.mark.parametrize(("sanity", "steps"), [(2, 0), (0, 6)])
def test_validation_with_other_operations_raises_before_the_next_step(tmp_path, sanity, steps):
    watch = StepsBefore()
    t = trainer(tmp_path, [QuantizationAwareTraining(begin="2ep"), watch], num_sanity_val_steps=sanity)
    with pytest.raises(ValueError, match="TwoViews should have the same operations in all of its calls"):
        t.fit(LitTwoViews(), loader(), loader(16))
    assert watch.steps == steps


def test_test_of_another_module_keeps_the_ranges(tmp_path):
    callback = QuantizationAwareTraining(begin=0.5)
    module, t = fit(tmp_path, callback, SaveAt(tmp_path, (9, 18)))
    before = callback.convert(module)(images())
    other = Lit()
    (metrics,) = t.test(other, loader(16), verbose=False)
    x, y = next(iter(loader(16, 16)))
    assert metrics["val_loss"] == pytest.approx(nn.functional.cross_entropy(other.eval().net(x), y).item(), abs=1e-6)
    assert torch.equal(callback.convert(module)(images()), before)
    t.test(other, loader(16), ckpt_path=tmp_path / "18.ckpt", verbose=False, weights_only=True)
    assert "forward" not in other.net.__dict__
    assert torch.equal(callback.convert(other)(images()), before)
