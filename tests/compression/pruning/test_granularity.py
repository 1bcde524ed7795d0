import pytest

from lightning_green.compression import (
    Granularity,
)


@pytest.mark.parametrize("bad", ["4:2", "0:4", "2:2", "1x1", "channel", ""])
def test_unknown_granularity_raises_and_lists_the_valid_ones(bad):
    with pytest.raises(ValueError, match="`granularity` should be 'unstructured', 'channels'"):
        Granularity.parse(bad)
