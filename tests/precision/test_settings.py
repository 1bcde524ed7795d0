"""Validation of the arguments."""

import pytest

from lightning_green import GreenMixedPrecision


def test_invalid_arguments_raise():
    with pytest.raises(ValueError, match="`precision` should be one of 'auto', 'bf16', 'fp16', 'fp32', got '16-mixed'"):
        GreenMixedPrecision("16-mixed")
    with pytest.raises(ValueError, match="`fallback` should be one of"):
        GreenMixedPrecision(fallback="fp8")
    with pytest.raises(ValueError, match=r"write \['head'\]"):
        GreenMixedPrecision(keep_fp32="head")
    with pytest.raises(ValueError, match="`max_consecutive_skips` should be 1 or more, got 0"):
        GreenMixedPrecision(max_consecutive_skips=0)
    with pytest.raises(ValueError, match="`min_scale` should be above 0"):
        GreenMixedPrecision(min_scale=0.0)
