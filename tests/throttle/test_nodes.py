"""Levels of a training on two nodes."""

import json
from itertools import groupby

import pytest

from tests.helpers.ledgers import read_records, total_of
from tests.helpers.nodes import two_torchruns
from tests.helpers.powercap import limits, package_with_counter


@pytest.mark.distributed
@pytest.mark.slow
def test_levels_are_measured_on_first_node_and_set_on_both(tmp_path):
    for node in "01":
        package_with_counter(tmp_path / node)
    variables = {"LIGHTNING_GREEN_RUN_DIR": str(tmp_path / "run"), "LIGHTNING_GREEN_CACHE_DIR": str(tmp_path / "cache")}
    codes, output = two_torchruns("tests/throttle/nodes_training.py", tmp_path, **variables)
    assert codes == [0, 0], output
    first, second = (json.loads((tmp_path / node / "limits.json").read_text()) for node in "01")
    assert len(first) == len(second)
    assert [watts for watts, _ in groupby(second)] == [
        200,
        150,
        200,
        150,
    ]  # full power for each measurement
    measured = [watts for watts, _ in groupby(first)]  # the number of rounds depends on the variation of the steps
    assert len(measured) >= 4
    assert measured == [200, 150] * (len(measured) // 2)
    for step in range(1, len(second)):
        if (second[step - 1], second[step]) == (200, 150):
            assert first[step] == 150  # the first node may have measured this level before
    assert [limits(tmp_path / node) for node in "01"] == [[200.0], [200.0]]
    records = read_records(tmp_path / "run")
    assert "the levels are measured again" in [record.get("reason") for record in records]
    for node, totals in total_of(records).by_node.items():  # the counter of each package
        counted = int((tmp_path / str(node) / "intel-rapl:0" / "energy_uj").read_text()) / 1e6
        assert totals.joules == pytest.approx(counted, rel=1e-3)
