"""Levels with several nodes: measured on the first, set on all, and only those that all of them offer."""

import json
import logging
from itertools import groupby

import pytest

from lightning_green.ledger.ledger import read_ledger
from lightning_green.ledger.totals import total
from lightning_green.planning.job import Level
from lightning_green.throttle import restore_left_over
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.controller import ThrottleControl
from lightning_green.throttle.request import FULL
from tests.helpers.nodes import two_torchruns
from tests.throttle.test_restoring import CHILD, left_by_a_kill
from tests.throttle.test_training import tree
from tests.throttle.trees import limits, packages


def started(folder, run, node):
    control = ThrottleControl([RaplPowerLimit(powercap=folder), "0.75:0.9", "0.5:0.7"])
    control.start(run, None, "model", on_gpu=False, ranks=2, node=node)
    return control


def test_a_level_that_one_node_does_not_offer_is_offered_by_none(tmp_path, caplog):
    trees = [packages(tmp_path / node, watts=(200,)) for node in "01"]
    first, second = (started(folder, tmp_path, node) for folder, node in zip(trees, "01", strict=True))
    assert first.names() == second.names() == ["0.75:0.9", "0.5:0.7"]
    first.keep(second.names())
    assert caplog.records == []
    with caplog.at_level(logging.WARNING):
        for control in (first, second):
            control.keep(["0.5:0.7"])
    assert "another node does not let 0.75:0.9 be set" in caplog.records[0].getMessage()
    assert first.levels() == (FULL, Level(0.5, 0.7))
    assert first.choose(Level(0.5, 0.7)) == Level(0.5, 0.7)
    assert first.number == 1
    assert second.go_to(first.number)
    assert [limits(folder) for folder in trees] == [[100.0], [100.0]]
    assert len(list(tmp_path.glob("throttle.*.json"))) == 2  # nodes of one host name do not share a journal
    first.restore()
    assert first.number == 0
    assert second.go_to(0)
    assert [limits(folder) for folder in trees] == [[200.0], [200.0]]
    assert list(tmp_path.glob("throttle.*.json")) == []
    first.keep([])
    assert not first.can_set


def test_a_node_restores_what_was_left_under_another_number(tmp_path):
    folder = packages(tmp_path / "powercap")
    assert "cap.bind" in CHILD
    file = left_by_a_kill(folder, tmp_path)  # the journal of a run with one node
    file.rename(tmp_path / file.name.replace(".json", ".1.json"))
    (line,) = restore_left_over(tmp_path, "0")
    assert "RAPL power limit was left throttled" in line
    assert limits(folder) == [200.0, 150.0]
    assert list(tmp_path.glob("throttle.*.json")) == []


def test_what_another_machine_of_the_same_name_left_is_not_touched(tmp_path):
    folder = packages(tmp_path / "powercap")
    file = left_by_a_kill(folder, tmp_path)
    other = tmp_path / file.name.replace(".json", ".1.json")
    file.rename(other)
    other.write_text(json.dumps({**json.loads(other.read_text()), "boot": "another"}))
    assert restore_left_over(tmp_path, "0") == []
    assert other.exists()


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
    records = read_ledger(tmp_path / "run")
    assert "the levels are measured again" in [record.get("reason") for record in records]
    for node, joules in total(records).joules_by_node.items():  # what each package has counted
        counted = int((tmp_path / str(node) / "intel-rapl:0" / "energy_uj").read_text()) / 1e6
        assert joules == pytest.approx(counted, rel=1e-3)
