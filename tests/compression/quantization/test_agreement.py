import pytest
import torch

from lightning_green.compression.quantization.agreement import agreement


def test_require_raises_on_disagreement():
    result = agreement([torch.randn(100, 4)], [torch.randn(100, 4)])
    with pytest.raises(
        ValueError, match="The outputs of the copy should agree with those of the original, but over 100 samples"
    ):
        result.require(0.5, "the copy", "the original")
    assert agreement([torch.full((2, 3), float("nan"))], [torch.randn(2, 3)]).difference != 0
    with pytest.raises(ValueError, match="should agree with"):
        agreement([torch.full((2, 3), float("nan"))], [torch.randn(2, 3)]).require(0.5, "a", "b")
