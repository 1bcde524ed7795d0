import pytest
import torch
from torch import nn

from lightning_green.compression.quantization.exported import (
    ancestors,
    export_graph,
    inference_outputs,
    is_inside,
    outputs_of,
    owner_path,
    shape_of,
    target_inputs,
)
from tests.helpers.compression_networks import Inception, SmallResNet
from tests.helpers.keyword_networks import ModelOutput, TokenClassifier, sentences

X = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
BATCH = next(iter(sentences(4)))
aten = torch.ops.aten


def names(nodes):
    return [node.name for node in nodes]


def test_graph_shares_parameters_and_computes_the_network_for_other_batch_sizes():
    torch.manual_seed(0)
    network = SmallResNet()
    network(X)
    network.eval()
    exported = export_graph(network, (X[:2],), training=False)
    assert not network.training
    for count in (1, 3, 4):
        (output,) = exported.graph(X[:count])
        torch.testing.assert_close(exported.output.restore([output]), network(X[:count]))
    assert {id(p) for p in exported.graph.parameters()} == {id(p) for p in network.parameters()}
    assert "forward" not in network.__dict__


def test_operations_in_place_become_functions_except_on_buffers():
    exported = export_graph(Inception(), (X[:2],), training=True)
    targets = {str(node.target) for node in exported.graph.graph.nodes}
    assert not {"aten.relu_.default", "aten.dropout_.default"} & targets
    changed = [n for n in exported.graph.graph.nodes if n.target is aten.add_.Tensor]
    assert all(node.args[0].op == "get_attr" for node in changed)
    evaluation = export_graph(Inception(), (X[:2],), training=False)
    assert not any(node.target is aten.add_.Tensor for node in evaluation.graph.graph.nodes)


def test_layers_in_evaluation_mode_stay_in_it():
    network = nn.Sequential(nn.Linear(4, 4), nn.Dropout(1.0), nn.Dropout(1.0))
    network[1].eval()
    (output,) = export_graph(network, (torch.ones(2, 4),), training=True).graph(torch.ones(2, 4))
    assert (output == 0).all()
    modes = [
        n.args[2] for n in export_graph(network, (torch.ones(2, 4),), True).graph.graph.nodes if "dropout" in n.name
    ]
    assert modes == [False, True]
    assert [module.training for module in network] == [True, False, True]


def test_inputs_are_named_and_the_output_is_restored():
    torch.manual_seed(0)
    network = TokenClassifier().eval()
    exported = export_graph(network, BATCH, training=False)
    inputs = [node for node in exported.graph.graph.nodes if node.op == "placeholder"]
    assert names(inputs) == list(BATCH)
    output = exported.output.restore(exported.graph(*BATCH.values()))
    assert isinstance(output, ModelOutput)
    torch.testing.assert_close(output.loss, network(**BATCH).loss)
    torch.testing.assert_close(output.logits, network(**BATCH).logits)


def test_targets_of_a_loss_are_inputs_of_scalars_alone():
    graph = export_graph(TokenClassifier(), BATCH, training=False).graph
    assert names(target_inputs(graph)) == ["labels"]
    assert inference_outputs(graph) == [1]
    unlabeled = {name: BATCH[name] for name in ("input_ids", "attention_mask")}
    graph = export_graph(TokenClassifier(), unlabeled, training=False).graph
    assert target_inputs(graph) == set()
    assert inference_outputs(graph) == [0]


class Losses(nn.Module):
    """Returns only a scalar, or a scalar that no target is needed for."""

    def __init__(self, with_output):
        super().__init__()
        self.fc, self.with_output = nn.Linear(4, 4), with_output

    def forward(self, x, y):
        output = self.fc(x)
        return {"penalty": output.square().mean(), "output": output + y} if self.with_output else (output - y).mean()


@pytest.mark.parametrize("with_output", [True, False])
def test_other_scalars_are_outputs(with_output):
    graph = export_graph(Losses(with_output), (torch.ones(2, 4), torch.ones(2, 4)), training=False).graph
    assert target_inputs(graph) == set()
    assert len(inference_outputs(graph)) == len(outputs_of(graph))


def test_operations_have_the_paths_and_shapes_of_their_modules():
    graph = export_graph(SmallResNet(), (X[:2],), training=False).graph
    convolutions = [node for node in graph.graph.nodes if node.target is aten.conv2d.default]
    paths = ["stem.0", *(f"layers.{i}.{name}" for i, name in ((0, "conv1"), (0, "conv2"), (1, "conv1"), (1, "conv2")))]
    assert [owner_path(node) for node in convolutions][:5] == paths
    assert is_inside(convolutions[1], "layers.0")
    assert not is_inside(convolutions[1], "layers.1")
    assert shape_of(convolutions[0])[1:] == (8, 16, 16)
    assert set(convolutions) <= ancestors(outputs_of(graph))
    assert convolutions[2] not in ancestors([convolutions[1]])


def test_outputs_of_other_types_name_the_argument():
    class Sets(nn.Linear):
        def forward(self, x):
            return {super().forward(x)}

    with pytest.raises(
        ValueError, match=r"`model` should be the dotted path of a network .*, but Sets cannot: .*got set"
    ):
        export_graph(Sets(4, 4), (torch.ones(2, 4),), training=False)


class Bounded(nn.Linear):
    """Has a branch that depends on the number of samples, as kernels of cuDNN do."""

    def forward(self, x):
        return super().forward(x) if x.shape[0] <= 880_801 else super().forward(x) * 2


def test_layers_with_a_limit_of_samples_are_exported():
    graph = export_graph(Bounded(4, 4), (torch.ones(2, 4),), training=True).graph
    assert graph(torch.ones(7, 4))[0].shape == (7, 4)


class OneSize(nn.Linear):
    def forward(self, x):
        return super().forward(x).view(2, 2, 2)


class Fails(nn.Linear):
    def forward(self, x):
        raise OSError("no such file\n\nsecond line")


class Branches(nn.Linear):
    def forward(self, x):
        y = super().forward(x)
        return y if y.sum() > 0 else -y


@pytest.mark.parametrize(
    ("network", "expected", "other"),
    [
        (Branches, ["without Python control flow", "`return y if y.sum"], "not known"),
        (OneSize, ["accepts one size only", "x.shape[0]", "torch.export reports:\n  Constraints violated"], "control"),
        (Fails, ["cause is not known", "reports:\n  OSError: no such file\n  second line"], "control flow"),
    ],
)
def test_error_has_the_remedy_of_its_cause_only(network, expected, other):
    with pytest.raises(ValueError, match=f"{network.__name__} cannot be exported for quantization") as failed:
        export_graph(network(4, 4), (torch.ones(2, 4),), training=True)
    for text in expected:
        assert text in str(failed.value)
    assert other not in str(failed.value)


def test_error_of_layers_of_pytorch_contains_no_line_of_this_package():
    with pytest.raises(
        ValueError, match=r"(?s)Sequential cannot be exported for quantization\. .*a and b must have same"
    ):
        export_graph(nn.Sequential(nn.Linear(4, 4), nn.Linear(5, 4)), (torch.ones(2, 4),), True)


class KeepsFeatures(nn.Linear):
    """Puts its features into a dictionary, for a loss outside, and counts its calls in another one."""

    def __init__(self):
        super().__init__(4, 4)
        self.features, self.counts = {}, {"calls": 0}

    def forward(self, x):
        y = super().forward(x)
        self.features["y"] = y * 2
        self.counts["calls"] += 1
        return y


def test_container_that_forward_changes_in_place_has_the_tensors_of_the_call():
    network = KeepsFeatures()
    exported = export_graph(network, (torch.ones(2, 4),), training=True)
    assert network.features == {}  # and no tensor without data
    exported.return_attributes()
    x = torch.randn(3, 4)
    y = exported.run(network, [x])
    assert torch.equal(network.features["y"], y * 2)
