import pytest
import torch

from lightning_green.compression import Ramp
from lightning_green.compression.distillation import losses
from lightning_green.compression.distillation.weighted_losses import WeightedLosses

STUDENT, TEACHER = torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[0.0, 3.0, 1.0]])
CLASSES = torch.tensor([1])


def values(made, progress=0.0, features=({}, {})):
    found = made.values((STUDENT, TEACHER), features, (None, CLASSES), progress)
    return {name: (weight, value.item()) for name, weight, value in found}


def test_weights_and_temperature_follow_their_schedules():
    weights = {"soft_targets": Ramp(1.0, 0.0), "decoupled": 2.0}
    made = WeightedLosses(weights, {}, Ramp(1.0, 3.0), lambda batch: batch[1])
    assert made.is_scheduled()
    assert made.compare_classes()
    assert values(made, 0.5) == {
        "soft_targets": (0.5, losses.soft_targets(STUDENT, TEACHER, 2.0).item()),
        "decoupled": (2.0, losses.decoupled(STUDENT, TEACHER, CLASSES, 2.0).item()),
    }


def test_default_temperatures_differ_by_loss():
    made = WeightedLosses({"standardized": 1.0, "soft_targets": 1.0}, {}, None, lambda batch: batch[1])
    assert not made.is_scheduled()
    assert values(made) == {
        "standardized": (1.0, losses.standardized(STUDENT, TEACHER, 2.0).item()),
        "soft_targets": (1.0, losses.soft_targets(STUDENT, TEACHER, 4.0).item()),
    }


def test_feature_losses_are_means_over_the_layers():
    made = WeightedLosses({"hint": 1.0}, {"a": "x", "b": "y"}, None, lambda batch: batch[1])
    assert not made.compare_classes()
    features = ({"a": torch.ones(2, 3), "b": torch.zeros(2, 3)}, {"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)})
    assert values(made, features=features) == {"hint": (1.0, pytest.approx(0.5))}
    assert made.adapters.layers == {}


def test_channel_dimension_is_checked():
    with pytest.raises(ValueError, match="`channel_dim` should be 1, -1 or None, got 2"):
        WeightedLosses({"soft_targets": 1.0}, {}, None, lambda batch: batch[1], channel_dim=2)
    for dim in (1, -1):
        made = WeightedLosses({"soft_targets": 1.0}, {}, None, lambda batch: batch[1], channel_dim=dim)
        outputs = torch.randn(2, 5, 3), torch.randn(2, 5, 3)
        ((_, _, value),) = made.values(outputs, ({}, {}), None, 0.0)
        first = [tensor.movedim(dim, 1) for tensor in outputs]
        assert value.item() == losses.soft_targets(*first, 4.0).item()
