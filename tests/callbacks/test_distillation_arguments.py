import pytest
from torch import nn

from lightning_green.callbacks.distillation import KnowledgeDistillation
from tests.helpers.compression_fits import Lit, Net, fit


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"teacher": 3}, TypeError, "`teacher` should be a module, a callable or the path"),
        ({"teacher": "x.ckpt"}, ValueError, "`teacher_model` should be the network that 'x.ckpt'"),
        ({"losses": "crd"}, ValueError, "`losses` should be one of 'standardized'"),
        ({"losses": {}}, ValueError, "`losses` should name at least one"),
        ({"losses": {"soft_targets": -1.0}}, ValueError, r"`losses\['soft_targets'\]` should be a weight"),
        ({"losses": "hint"}, ValueError, "`layers` should name the layers that hint compare"),
        ({"layers": {"a": "b"}}, ValueError, "`layers` are for the losses 'hint' and 'attention'"),
        ({"temperature": 0.0}, ValueError, "`temperature` should be above 0"),
        ({"precision": "fp8"}, ValueError, "`precision` should be one of '32', 'bf16', '16'"),
        (
            {"losses": "hint", "layers": {"a": "b"}, "cache": "memory"},
            ValueError,
            "`cache` stores outputs, not features",
        ),
    ],
)
def test_invalid_arguments_raise_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        KnowledgeDistillation(**{"teacher": Net(), **arguments})


class Manual(Lit):
    def training_step(self, batch, batch_idx):
        return "no loss"


class Elsewhere(Lit):
    def training_step(self, batch, batch_idx):
        return self.net.fc.weight.sum()


@pytest.mark.parametrize(
    ("arguments", "module", "message"),
    [
        ({"teacher": nn.Sequential(nn.Flatten(), nn.Linear(192, 7))}, Lit, r"student's outputs \(8, 4\), got \(8, 7\)"),
        ({}, Manual, "`training_step` of Manual should return a loss to be distilled, got str"),
        ({}, Elsewhere, "`model` should be the network that training_step calls"),
        ({"losses": "hint", "layers": {"block9": "block"}}, Lit, "`layers` should be the dotted path of a submodule"),
    ],
)
def test_arguments_that_do_not_fit_the_training_raise(tmp_path, arguments, module, message):
    with pytest.raises(ValueError, match=message):
        fit(tmp_path, KnowledgeDistillation(**{"teacher": Net(), **arguments}), module=module())
