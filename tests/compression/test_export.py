import importlib.util
import sys

import pytest
import torch
from torch import nn

from lightning_green.compression.export import export, onnx_session, weight_bytes
from lightning_green.compression.quantization.quantized_network import quantize
from tests.helpers.compression_networks import Inception, Mixed, SmallResNet
from tests.helpers.extras import needs_onnx
from tests.helpers.quantized_networks import IMAGES as X
from tests.helpers.quantized_networks import NETWORKS, trained


@pytest.mark.sampled(every=3)
@needs_onnx
@pytest.mark.parametrize("network", NETWORKS)
def test_onnx_runtime_executes_integer_kernels(network, tmp_path):
    model, quantized = trained(network)
    written = export(quantized.convert(), tmp_path / "int8.onnx", [X])
    assert written.agreement.difference < 0.03
    assert written.agreement.same_class >= 0.95
    floating = export(model, tmp_path / "float.onnx", [X], int8=False)
    assert floating.agreement.difference < 1e-4
    assert written.weight_bytes == weight_bytes(tmp_path / "int8.onnx") < 0.6 * floating.weight_bytes
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimized.onnx"), 3
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    convolutions = {SmallResNet: 6, Mixed: 4, Inception: 6}[network]
    assert kinds.count("QLinearConv") == convolutions
    assert not {"Conv", "FusedConv", "Gemm", "MatMul"} & set(kinds)
    session = onnx_session(tmp_path / "int8.onnx")
    assert session.run(None, {session.get_inputs()[0].name: X[:1].numpy()})[0].shape == (1, 4)


class Saturating(nn.Module):
    """Large inputs times large weights: with eight bits for both, a pair of products does not fit into sixteen."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 16, 1, bias=False)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).mean((2, 3)))


@needs_onnx
def test_seven_bit_weights_do_not_saturate(tmp_path):
    torch.manual_seed(0)
    model, x = Saturating().eval(), torch.rand(64, 16, 8, 8) + 1
    with torch.no_grad():
        model.conv.weight.uniform_(0.05, 0.06)
    integers = quantize(model, [x]).state_dict()["conv2d_weight"]
    assert 50 < integers.abs().max() <= 63
    assert export(model, tmp_path / "7.onnx", [x]).agreement.difference < 0.02
    assert quantize(model, [x], weight_bits=8).state_dict()["conv2d_weight"].max() > 120
    assert quantize(model, [x], activation="int8").state_dict()["conv2d_weight"].max() > 120


@needs_onnx
def test_export_quantizes_a_float_network(tmp_path):
    model, _ = trained(SmallResNet)
    written = export(model, tmp_path / "x.onnx", [X[:16], X[16:]])
    assert written.agreement.samples == 32
    assert written.agreement.same_class > 0.9


def test_export_to_a_torch_export_program(tmp_path):
    model, quantized = trained(Mixed)
    converted = quantized.convert()
    written = export(converted, tmp_path / "x.pt2", [X], format="torch")
    assert written.agreement.difference < 1e-5
    loaded = torch.export.load(tmp_path / "x.pt2").module()
    assert torch.allclose(loaded(X[:5]), converted(X[:5]), atol=1e-6)
    assert (tmp_path / "x.pt2").stat().st_size < 200_000  # not the storage of the data that the example was cut from
    assert model.training is False


def test_invalid_export_arguments_raise(tmp_path):
    model, quantized = trained(SmallResNet, steps=2)
    with pytest.raises(ValueError, match="`format` should be one of 'onnx', 'torch', 'executorch'"):
        export(model, tmp_path / "x", [X], format="tflite")
    with pytest.raises(ValueError, match="`inputs` should contain at least one batch, got none"):
        export(model, tmp_path / "x")
    with pytest.raises(TypeError, match="`int8` should be True"):
        export(quantized.convert(), tmp_path / "x", [X], int8=False)
    with pytest.raises(ValueError, match=r"`path` should end in \.pt2"):
        export(model, tmp_path / "x.bin", [X], format="torch")
    if importlib.util.find_spec("executorch") is None:
        with pytest.raises(ModuleNotFoundError, match="needs the package executorch: pip install executorch"):
            export(model, tmp_path / "x.pte", [X], format="executorch")


def test_missing_extra_raises_with_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"`format` 'onnx' needs the package onnx: pip install 'lightning-green\[c"
    ):
        export(SmallResNet(), tmp_path / "x.onnx", [X])
    assert not (tmp_path / "x.onnx").exists()
