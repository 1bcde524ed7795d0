"""A budget of a training on two ranks, which act at the same batch."""

import re
import sys

import pytest

from lightning_green.budget import BudgetDirectory, Limits
from tests.helpers.ledgers import read_records
from tests.helpers.processes import ROOT, run_to_the_end

SCRIPT = ROOT / "tests" / "helpers" / "budget_ranks.py"
pytestmark = [pytest.mark.slow, pytest.mark.distributed]


def start(folder, limit, action):
    """Run the script; return its exit code, the steps and the digests of the ranks, and the output."""
    variables = {"LIGHTNING_GREEN_RUN_DIR": str(folder / "run")}
    code, output = run_to_the_end([sys.executable, SCRIPT, folder, limit, action], folder, 200, **variables)
    found = re.findall(r"^RANK (\d) (\d+) (\w+)$", output, re.MULTILINE)
    return code, {steps for _, steps, _ in found}, {digest for _, _, digest in found}, len(found), output


@pytest.mark.parametrize("action", ["stop", pytest.param("throttle", marks=pytest.mark.nightly)])
def test_all_ranks_act_at_the_same_batch(tmp_path, action):
    code, steps, digests, count, output = start(tmp_path, 0.35, action)
    assert code == 0, output
    assert (count, len(digests)) == (2, 1)
    events = read_records(tmp_path / "run")
    if action == "stop":
        assert steps == {"8"}
        (finished,) = [one for one in events if one["event"] == "finished"]
        assert finished["reason"] == "8 steps done; a budget is used"
        assert sum(one["event"] == "validation" for one in events) == 1
    else:
        assert steps == {"24"}
        assert [one["power"] for one in events if one.get("state") == "throttled" and one["event"] == "state"] == [0.5]


@pytest.mark.nightly
def test_paused_ranks_continue_with_a_higher_limit_and_have_the_same_weights(tmp_path):
    whole = start(tmp_path / "whole", 9.0, "pause")
    assert (whole[0], whole[1], whole[3]) == (0, {"24"}, 2), whole[-1]
    folder = tmp_path / "paused"
    code, _, _, count, output = start(folder, 0.35, "pause")
    assert (code, count) == (75, 0), output
    BudgetDirectory(folder / "budget").set_limits(Limits(kwh=9.0))
    code, steps, digests, count, output = start(folder, 0.35, "pause")
    assert (code, steps, digests, count) == (0, {"24"}, whole[2], 2), output
    assert "continued from step 7" in output
