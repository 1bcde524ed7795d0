"""Pruning, quantization and distillation on a GPU: they train, resume exactly, and export."""

import pytest
import torch
from torch import nn

from lightning_green import GreenMixedPrecision, KnowledgeDistillation, Pruning, QuantizationAwareTraining
from lightning_green.compression import export
from tests.helpers.compression_fits import Lit, assert_resumes_exactly, fit, images
from tests.helpers.distillation_fits import teacher
from tests.helpers.extras import needs_torch_pruning

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
ON_GPU = {"accelerator": "gpu", "devices": 1}


@pytest.fixture(autouse=True)
def _deterministic(monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def callbacks():
    return [Pruning(0.5), QuantizationAwareTraining(begin=0.3, freeze=0.9), KnowledgeDistillation(teacher())]


class ChannelsLast(Lit):
    def __init__(self):
        super().__init__()
        self.net.to(memory_format=torch.channels_last)

    def training_step(self, batch, batch_idx):
        x = batch[0].to(memory_format=torch.channels_last)
        return nn.functional.cross_entropy(self.net(x), batch[1])


class Compiled(Lit):
    def configure_model(self):
        self.net.compile()


@pytest.mark.parametrize("make_module", [Lit, ChannelsLast])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_all_of_them_resume_exactly(tmp_path, make_module, precision):
    assert_resumes_exactly(tmp_path, callbacks, (3, 9), make_module, precision=precision, **ON_GPU)


def test_all_of_them_train_a_compiled_network(tmp_path):
    module, trainer = fit(tmp_path, *callbacks(), module=Compiled(), **ON_GPU)
    assert trainer.global_step == 18
    assert all(torch.isfinite(p).all() for p in module.parameters())


@needs_torch_pruning
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_channels_are_removed_and_training_resumes(tmp_path, precision):
    def prune():
        return [Pruning(0.3, "channels", model="net", begin=0.4, end=0.6)]

    assert_resumes_exactly(tmp_path, prune, (3, 12), precision=precision, **ON_GPU)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_own_precision_and_fake_quantization_export_an_int8_network(tmp_path, precision):
    quantization = QuantizationAwareTraining(begin=0.3, freeze=0.9)
    module, _ = fit(tmp_path, quantization, plugins=[GreenMixedPrecision(precision)], **ON_GPU)
    written = export(quantization.convert(module), tmp_path / "net.pt2", [images(16)], format="torch")
    assert written.agreement.difference < 0.1
