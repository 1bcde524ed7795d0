import importlib.util
import sys

import pytest
import torch
from torch import nn

from lightning_green.compression.export import export, onnx_session, weight_bytes
from lightning_green.compression.quantization.agreement import agreement
from lightning_green.compression.quantization.fake_quantize import (
    ActivationFakeQuantize,
    WeightFakeQuantize,
    weight_scales,
)
from lightning_green.compression.quantization.quantized_network import QuantizedNetwork, quantize
from tests.compression.networks import Mixed, Residual, SmallResNet

X = torch.randn(32, 3, 16, 16, generator=torch.Generator().manual_seed(3))
needs_onnx = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs the extra `compression`: onnx, onnxscript, onnxruntime",
)


class Inception(nn.Module):
    """In-place operations, a layer used twice, squeeze and excite, max pooling, batch norm on a linear layer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding="same")
        self.bn = nn.BatchNorm2d(8, eps=0.5)
        self.shared = nn.Conv2d(8, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.block = Residual(8, 8)
        self.hidden = nn.Linear(8, 16)
        self.norm = nn.BatchNorm1d(16)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        x = nn.functional.relu_(self.bn(self.stem(x)))
        x = nn.functional.max_pool2d(self.shared(self.shared(x)), 2)
        x = x * torch.sigmoid(self.gate(nn.functional.adaptive_avg_pool2d(x, 1)))
        y = self.block(x)
        y += x
        return self.fc(nn.functional.relu(self.norm(self.hidden(y.mean((2, 3))))))


NETWORKS = [SmallResNet, Mixed, Inception]


def trained(network, steps=12):
    torch.manual_seed(0)
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    target = X.mean((2, 3)).argmax(1)
    quantized = QuantizedNetwork(model, (X[:2],))
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(quantized.run(X), target).backward()
        optimizer.step()
    model.eval()
    return model, quantized


@pytest.mark.parametrize("network", NETWORKS)
def test_integers_answer_as_fake_quantisation_does(network):
    model, quantized = trained(network)
    simulated = quantized.run(X, training=False)
    converted = quantized.convert()
    difference = (converted(X) - simulated).abs() / simulated.std()
    assert float((difference < 1e-3).float().mean()) > 0.95  # a CPU with VNNI may round a tie the other way
    assert float(difference.max()) < 0.03
    assert not torch.allclose(model(X), simulated, atol=1e-3 * float(simulated.std()))
    assert agreement([simulated], [model(X)]).difference < 0.2
    assert converted(X[:1]).shape == (1, 4)
    weights = sum(p.numel() for p in model.parameters() if p.dim() > 1)
    assert sum(v.numel() for v in converted.state_dict().values() if v.dtype is torch.int8) == weights + extra(model)


def extra(model):
    return model.shared.weight.numel() if isinstance(model, Inception) else 0  # stored for each of its uses


@pytest.mark.parametrize("network", NETWORKS)
def test_the_graphs_are_the_network_where_nothing_is_rounded(network):
    torch.manual_seed(0)
    model = network()
    quantized = QuantizedNetwork(model, (X[:2],))
    for graph in quantized._graphs.values():
        graph.round_weight = nn.Identity()
    state = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(1)
    quantized.observing = False
    ours = quantized.run(X)
    statistics = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(state)
    torch.manual_seed(1)
    assert torch.allclose(ours, model(X), atol=1e-6)
    for key, value in model.state_dict().items():
        assert torch.allclose(value.float(), statistics[key].float(), atol=1e-6), key
    model.eval()
    assert torch.allclose(quantized.run(X, training=False), model(X), atol=1e-6)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in model.state_dict().items())


def test_evaluation_counts_nothing():
    model, quantized = trained(SmallResNet, steps=1)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    counts = [r.count for r in quantized.roundings.values()]
    quantized.run(X, training=False)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [r.count for r in quantized.roundings.values()] == counts


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_folding_leaves_the_integers_of_training(sign):
    model, quantized = trained(SmallResNet)
    norm = model.layers[0].bn1
    with torch.no_grad():
        norm.weight.copy_(sign * torch.linspace(0.1, 3.0, len(norm.weight)))
    weight = model.layers[0].conv1.weight.detach()
    integers = torch.round(weight / weight_scales(weight, 63).view(-1, 1, 1, 1))
    stored = quantized.convert().state_dict()["conv2d_1_weight"]
    assert torch.equal(stored.float(), sign * integers)


def test_dead_channels_and_large_biases_survive():
    model, quantized = trained(SmallResNet)
    block = model.layers[0]
    with torch.no_grad():
        block.conv1.weight[0] = 0
        block.bn1.weight[1] = 0
        block.bn1.weight[2] = 1e-9
        block.bn1.bias[:3] = 2.0
    simulated = quantized.run(X, training=False)
    assert torch.allclose(quantized.convert()(X), simulated, atol=1e-3 * float(simulated.std()))


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_zero_is_exact_and_rounding_is_at_most_half_a_step(dtype):
    rounding = ActivationFakeQuantize(dtype)
    value = torch.linspace(-1.7, 3.1, 1001)
    rounding.observe(value)
    scale, zero_point = rounding.quantization_parameters()
    assert rounding.quant_min <= zero_point <= rounding.quant_max
    assert rounding(torch.zeros(3)).eq(0).all()
    assert (rounding(value) - value).abs().max() <= 0.5001 * scale + 1e-6
    assert len(rounding(value).unique()) == 256


def test_ranges_average_equally_at_first_and_skip_what_is_not_finite():
    rounding = ActivationFakeQuantize(averaging=0.01)
    for high in (1.0, 2.0, 6.0):
        rounding.observe(torch.tensor([0.0, high]))
    assert rounding._range[1].item() == pytest.approx(3.0)
    rounding.observe(torch.tensor([float("inf"), 1.0]))
    assert rounding._range[1].item() == pytest.approx(3.0)


def test_the_gradient_passes_inside_the_range_alone():
    rounding = ActivationFakeQuantize()
    rounding.observe(torch.tensor([0.0, 1.0]))
    value = torch.tensor([-0.5, 0.3, 2.0], requires_grad=True)
    rounding(value).sum().backward()
    assert value.grad.tolist() == [0.0, 1.0, 0.0]
    weight = torch.randn(4, 5, requires_grad=True)
    WeightFakeQuantize()(weight).sum().backward()
    assert weight.grad.eq(1).all()


def test_layers_stay_in_float_by_pattern():
    quantized = QuantizedNetwork(SmallResNet(), (X[:2],), keep_float=["layers.0", "fc"])
    quantized.run(X)
    state = quantized.convert().state_dict()
    assert sum(v.dtype is torch.int8 for v in state.values()) == 7 - 2 - 1
    assert {k for k in state if k.endswith("weight") and state[k].dtype is torch.float32} >= {
        "layers_0_conv1_weight",
        "layers_0_conv2_weight",
        "fc_weight",
    }


class Uncertain(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.auxiliary = nn.Linear(4, 4)

    def forward(self, x):
        if self.training:
            return self.fc(x), self.auxiliary(x)
        return self.fc(x)


def test_what_cannot_be_quantised_says_so():
    with pytest.raises(ValueError, match="Uncertain should do the same operations in training and in evaluation"):
        QuantizedNetwork(Uncertain(), (torch.randn(2, 4),))
    with pytest.raises(ValueError, match="fake quantisation has to see data first"):
        QuantizedNetwork(SmallResNet(), (X[:2],)).convert()
    with pytest.raises(ValueError, match="`batches` should hold at least one batch"):
        quantize(SmallResNet(), [])
    with pytest.raises(ValueError, match="ranges of 1 activations, but the network has 10"):
        QuantizedNetwork(SmallResNet(), (X[:2],)).load_state_dict({"x": {}})


@needs_onnx
@pytest.mark.parametrize("network", NETWORKS)
def test_onnx_runtime_computes_with_integers(network, tmp_path):
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
    options.optimized_model_filepath, options.log_severity_level = str(tmp_path / "optimised.onnx"), 3
    onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
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
def test_seven_bits_answer_the_same_on_every_processor(tmp_path):
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
def test_a_trained_network_is_quantised_by_export(tmp_path):
    model, _ = trained(SmallResNet)
    written = export(model, tmp_path / "x.onnx", [X[:16], X[16:]])
    assert written.agreement.samples == 32
    assert written.agreement.same_class > 0.9


def test_a_program_of_torch_export(tmp_path):
    model, quantized = trained(Mixed)
    converted = quantized.convert()
    written = export(converted, tmp_path / "x.pt2", [X], format="torch")
    assert written.agreement.difference < 1e-5
    loaded = torch.export.load(tmp_path / "x.pt2").module()
    assert torch.allclose(loaded(X[:5]), converted(X[:5]), atol=1e-6)
    assert (tmp_path / "x.pt2").stat().st_size < 200_000  # not the storage of the data that the example was cut from
    assert model.training is False


def test_a_wrong_export_says_what_to_pass(tmp_path):
    model, quantized = trained(SmallResNet, steps=2)
    with pytest.raises(ValueError, match="`format` should be one of 'onnx', 'torch', 'executorch'"):
        export(model, tmp_path / "x", [X], format="tflite")
    with pytest.raises(ValueError, match="`inputs` should hold at least one batch"):
        export(model, tmp_path / "x")
    with pytest.raises(TypeError, match="`int8` should be True"):
        export(quantized.convert(), tmp_path / "x", [X], int8=False)
    with pytest.raises(ValueError, match=r"`path` should end in \.pt2"):
        export(model, tmp_path / "x.bin", [X], format="torch")
    if importlib.util.find_spec("executorch") is None:
        with pytest.raises(ModuleNotFoundError, match="needs the package executorch: pip install executorch"):
            export(model, tmp_path / "x.pte", [X], format="executorch")


def test_a_missing_extra_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"`format` 'onnx' needs the package onnx: pip install 'lightning-green\[c"
    ):
        export(SmallResNet(), tmp_path / "x.onnx", [X])
    assert not (tmp_path / "x.onnx").exists()


def test_disagreement_is_an_error():
    result = agreement([torch.randn(100, 4)], [torch.randn(100, 4)])
    with pytest.raises(ValueError, match="The copy should answer like the original, but over 100 samples"):
        result.require(0.5, "The copy", "the original")
    assert agreement([torch.full((2, 3), float("nan"))], [torch.randn(2, 3)]).difference != 0
    with pytest.raises(ValueError, match="should answer like"):
        agreement([torch.full((2, 3), float("nan"))], [torch.randn(2, 3)]).require(0.5, "a", "b")
