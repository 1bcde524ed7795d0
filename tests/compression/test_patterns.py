import pytest

from lightning_green.compression.patterns import matching

NAMES = ["encoder.conv.weight", "encoder.conv.bias", "head.weight"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("head.weight", {"head.weight"}),
        ("encoder", {"encoder.conv.weight", "encoder.conv.bias"}),
        ("*.weight", {"encoder.conv.weight", "head.weight"}),
    ],
)
def test_pattern_matches_a_name_a_module_or_a_shell_pattern(pattern, expected):
    assert matching("exclude", [pattern], NAMES) == expected


def test_pattern_without_a_match_raises():
    with pytest.raises(ValueError, match=r"`exclude` should match something, but 'enc' matches none of: encoder\.conv"):
        matching("exclude", ["head", "enc"], NAMES)
