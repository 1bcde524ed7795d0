"""Levels with several nodes: measured on the first, set on all, and only those that all of them offer."""

import json
from itertools import groupby

import pytest

from tests.helpers.ledgers import read_records, total_of
from tests.helpers.nodes import two_torchruns
from tests.helpers.powercap import limits
from tests.throttle.test_training import tree


@pytest.mark.distributed
@pytest.mark.slow
def test_levels_are_measured_on_the_first_node_and_set_on_both(tmp_path):
    for node in "01":
        tree(tmp_path / node)
    variables = {"LIGHTNING_GREEN_RUN_DIR": str(tmp_path / "run"), "LIGHTNING_GREEN_CACHE_DIR": str(tmp_path / "cache")}
    codes, told = two_torchruns("tests/throttle/nodes_training.py", tmp_path, **variables)
    assert codes == [0, 0], told
    first, second = (json.loads((tmp_path / node / "limits.json").read_text()) for node in "01")
    assert len(first) == len(second)
    assert [watts for watts, _ in groupby(second)] == [200, 150, 200, 150]  # set, and at full power to measure again
    measured = [watts for watts, _ in groupby(first)]  # how many rounds that takes depends on how even the steps are
    assert len(measured) >= 6
    assert measured == [200, 150] * (len(measured) // 2)
    for step in range(1, len(second)):
        if (second[step - 1], second[step]) == (200, 150):
            assert first[step] == 150  # the first may have measured at that level before, by how even its steps were
    assert [limits(tmp_path / node) for node in "01"] == [[200.0], [200.0]]
    records = read_records(tmp_path / "run")
    assert "the levels are measured again" in [record.get("reason") for record in records]
    for node, totals in total_of(records).by_node.items():  # what each package has counted
        counted = int((tmp_path / str(node) / "intel-rapl:0" / "energy_uj").read_text()) / 1e6
        assert totals.joules == pytest.approx(counted, rel=1e-3)
