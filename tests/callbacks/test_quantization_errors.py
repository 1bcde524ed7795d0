import pytest
import torch
from torch import nn

from lightning_green.callbacks.quantization import QuantizationAwareTraining
from tests.helpers.compression_fits import Lit, Net, StepsBefore, fit


class Branches(Net):
    def forward(self, x):
        if x.sum() > 1e9:
            return self.fc(x.mean((2, 3)))
        return super().forward(x)


def test_export_error_contains_the_line_of_the_network(tmp_path):
    module = Lit()
    module.net = Branches()
    with pytest.raises(
        ValueError, match=r"Branches cannot be exported .*test_quantization_errors\.py:\d+ \(`if x\.sum\(\) > 1e9"
    ):
        fit(tmp_path, QuantizationAwareTraining(begin=0.5), module=module)


def test_export_error_is_raised_before_the_first_step(tmp_path):
    module, watch = Lit(), StepsBefore()
    module.net = Branches()
    with pytest.raises(ValueError, match="Branches cannot be exported"):
        fit(tmp_path, QuantizationAwareTraining(begin=0.9), watch, module=module)
    assert watch.steps == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"begin": 1.5}, ValueError, r"`begin` should be a fraction in \[0, 1\]"),
        ({"begin": 0.9, "freeze": 0.8}, ValueError, "`freeze` should not come before `begin`"),
        ({"weight_bits": 6}, ValueError, "`weight_bits` should be 7, 8 or None, got 6"),
        ({"activation": "int4"}, ValueError, "`activation` should be one of 'uint8', 'int8'"),
        ({"keep_float": "fc"}, TypeError, "`keep_float` should be a list of patterns"),
        ({"total_steps": 0}, ValueError, "`total_steps` should be an integer"),
    ],
)
def test_invalid_arguments_raise_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        QuantizationAwareTraining(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "network"}, r"`model` should be the dotted path .* \(children: net\), got 'network'"),
        ({"keep_float": ["head"], "begin": 0.2}, "`keep_float` should match something, but 'head' matches none"),
        ({"keep_float": ["*"], "begin": 0.2}, "nothing to quantize"),
        ({"begin": "2ep", "freeze": 0.5}, "`freeze` should not come before `begin`: they are steps 9 and 12"),
    ],
)
def test_arguments_that_do_not_fit_the_model_raise(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, QuantizationAwareTraining(**arguments))


class ByParts(Lit):
    def training_step(self, batch, batch_idx):
        x = self.net.block(torch.relu(self.net.bn(self.net.stem(batch[0])))).mean((2, 3))
        return nn.functional.cross_entropy(self.net.fc(x), batch[1])


def test_network_that_is_not_called_as_a_whole_raises(tmp_path):
    with pytest.raises(ValueError, match="`model` should be a network that training_step calls, but Net has not been"):
        fit(tmp_path, QuantizationAwareTraining(begin=0.5), module=ByParts())


class Returning(nn.Module):
    """A network whose outputs are of another type."""

    def __init__(self, wrap):
        super().__init__()
        self.fc, self.wrap = nn.Linear(192, 4), wrap

    def forward(self, x):
        return self.wrap(self.fc(x.flatten(1)))


class LitReturning(Lit):
    def __init__(self, wrap):
        super().__init__()
        self.net = Returning(wrap)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(next(iter(self.net(batch[0]))), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize(
    ("make_module", "message"),
    [
        (
            lambda: LitReturning(lambda x: {x}),
            "`model` should be the dotted path of a network .* Returning cannot: .*set",
        ),
        (lambda: LitReturning(lambda x: [x, torch.float32]), "containers of tensors, got dtype"),
    ],
)
def test_unsupported_outputs_raise_before_the_first_step(tmp_path, make_module, message):
    watch = StepsBefore()
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, QuantizationAwareTraining(begin=0.9), watch, module=make_module())
    assert watch.steps == 0
