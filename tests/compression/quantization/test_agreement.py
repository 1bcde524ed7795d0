import pytest
import torch

from lightning_green.compression.quantization.agreement import agreement, worst_agreement


def test_require_raises_on_disagreement():
    result = agreement([torch.randn(100, 4)], [torch.randn(100, 4)])
    with pytest.raises(
        ValueError, match="The outputs of the copy should agree with those of the original, but over 100 samples"
    ):
        result.require(0.5, "the copy", "the original")
    assert agreement([torch.full((2, 3), float("nan"))], [torch.randn(2, 3)]).difference != 0
    with pytest.raises(ValueError, match="should agree with"):
        agreement([torch.full((2, 3), float("nan"))], [torch.randn(2, 3)]).require(0.5, "a", "b")


def test_worst_agreement_is_that_of_the_tensor_that_differs_most():
    good, bad = torch.randn(8, 4), torch.randn(8, 4)
    outputs = [{"a": good, "loss": torch.tensor(1.0), "b": bad}, {"a": bad, "loss": torch.tensor(1.0), "b": good}]
    reference = [(good, bad + 0.1), (bad, good + 0.1)]
    result = worst_agreement(outputs, reference)
    assert result.difference == agreement([bad, good], [bad + 0.1, good + 0.1]).difference > 0
    assert result.samples == 16
    broken = [(good, bad * float("nan")), (bad, good)]
    assert worst_agreement(broken, reference).difference != 0
    with pytest.raises(ValueError, match="The outputs should have 2 tensors as the reference has, got 1"):
        worst_agreement([good, bad], reference)
