import pytest
import torch

from lightning_green.compression.distillation.adapters import Adapters

G = torch.Generator().manual_seed(0)
FEATURES, TARGET = torch.randn(4, 3, 2, 2, generator=G), torch.randn(4, 5, 2, 2, generator=G)


def train(adapters, steps):
    for _ in range(steps):
        (adapters.adapt("a", FEATURES, 5) - TARGET).square().mean().backward()
        adapters.step()
    return adapters


def test_features_with_the_same_channels_are_not_adapted():
    adapters = Adapters()
    assert adapters.adapt("a", FEATURES, 3) is FEATURES
    assert adapters.layers == {}


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 7), (4, 3, 2, 5)])
def test_adapter_is_a_linear_map_of_channels(shape):
    adapters, features = Adapters(), torch.randn(shape, generator=G)
    adapted = adapters.adapt("a", features, 5)
    assert adapted.shape == (4, 5, *shape[2:])
    expected = (features.movedim(1, -1) @ adapters.layers["a"].T).movedim(-1, 1)
    torch.testing.assert_close(adapted, expected)


def test_steps_decrease_the_distance_and_clear_the_gradients():
    adapters = Adapters(learning_rate=0.05)
    first = (adapters.adapt("a", FEATURES, 5) - TARGET).square().mean().item()
    train(adapters, 20)
    assert (adapters.adapt("a", FEATURES, 5) - TARGET).square().mean().item() < 0.9 * first
    assert adapters.layers["a"].grad is None


def test_step_with_nonfinite_gradients_is_skipped():
    adapters = train(Adapters(), 1)
    before = adapters.layers["a"].detach().clone()
    (adapters.adapt("a", FEATURES, 5) * float("inf")).sum().backward()
    adapters.step()
    assert torch.equal(adapters.layers["a"], before)


def test_restored_adapters_continue_exactly():
    whole = train(Adapters(), 5)
    stopped = train(Adapters(), 2)
    restored = Adapters(seed=9)
    restored.load_state_dict(stopped.state_dict())
    train(restored, 3)
    assert torch.equal(restored.layers["a"], whole.layers["a"])


def test_adapter_is_replaced_when_the_student_has_fewer_channels():
    adapters = Adapters()
    adapters.adapt("a", FEATURES, 5)
    assert adapters.adapt("a", FEATURES[:, :2], 5).shape == (4, 5, 2, 2)
    assert adapters.layers["a"].shape == (5, 2)
