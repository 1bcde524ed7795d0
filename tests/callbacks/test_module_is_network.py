import lightning.pytorch as pl
import torch
from torch import nn
from torchmetrics import MeanMetric

from lightning_green.callbacks.distillation import KnowledgeDistillation
from lightning_green.callbacks.pruning import Pruning
from lightning_green.callbacks.quantization import QuantizationAwareTraining
from lightning_green.compression import export
from tests.helpers.compression_fits import (
    assert_equal,
    assert_resumes_exactly,
    fit,
    images,
)
from tests.helpers.extras import needs_onnx, needs_torch_pruning


class Whole(pl.LightningModule):
    """Layers directly in the LightningModule, which is the network."""

    def __init__(self, width=16):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.hidden, self.head = nn.Linear(width, width), nn.Linear(width, 4)
        self.accuracy = MeanMetric()

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x))).mean((2, 3))
        return self.head(torch.relu(self.hidden(x)))

    def training_step(self, batch, batch_idx):
        output = self(batch[0])
        self.accuracy.update((output.argmax(1) == batch[1]).float())
        self.log("accuracy", self.accuracy)
        return nn.functional.cross_entropy(output, batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 1e-2)


def test_module_that_is_the_network_is_quantized(tmp_path):
    callback = QuantizationAwareTraining(begin=0.4, model="")
    module, t = fit(tmp_path, callback, module=Whole())
    assert t.callback_metrics["quantization/active"] == 1
    assert "forward" not in module.__dict__
    assert module.state_dict().keys() == Whole().state_dict().keys()
    converted = callback.convert(module)
    assert isinstance(converted, torch.fx.GraphModule)
    assert not isinstance(converted, pl.LightningModule)
    assert sum(value.dtype is torch.int8 for value in converted.state_dict().values()) == 3
    assert callback.agreement(converted, module, [images()]).difference < 1e-3
    assert callback.agreement(module.eval(), module, [images()]).difference > 1e-3


def test_module_that_is_the_network_resumes_exactly(tmp_path):
    assert_resumes_exactly(
        tmp_path,
        lambda: [QuantizationAwareTraining(begin=0.4, freeze=0.7, model="")],
        steps=(3, 9, 15),
        make_module=Whole,
    )


@needs_torch_pruning
@needs_onnx
def test_module_that_is_the_network_is_pruned_distilled_quantized_and_exported(tmp_path):
    qat = QuantizationAwareTraining(begin=0.6, model="")
    others = [Pruning(0.5, "channels", end=0.4, model=""), KnowledgeDistillation(Whole(24), model="")]
    module, t = fit(tmp_path, qat, *others, module=Whole())
    assert t.callback_metrics["pruning/sparsity"] >= 0.5
    assert module.stem.out_channels < 16
    assert t.callback_metrics["distillation/standardized"] > 0
    written = export(qat.convert(module), tmp_path / "whole.onnx", [images()])
    assert written.agreement.difference < 0.05


def test_callback_is_reused_for_a_second_module(tmp_path):
    callback, states = QuantizationAwareTraining(begin=0.3, model=""), []
    for _ in range(2):
        torch.manual_seed(3)
        module, _ = fit(tmp_path, callback, module=Whole())
        states.append(dict(module.state_dict()))
        callback.convert(module)
    assert_equal(*states)
