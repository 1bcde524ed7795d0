"""Two nodes, each started by a torchrun of its own: their energy adds up, over a planned exit and a kill as well."""

import json
import shlex
import shutil
import subprocess
from itertools import pairwise

import pytest

from lightning_green.ledger.ledger import node_name
from lightning_green.ledger.power import full_power
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.report.status import status_text
from lightning_green.utilities.quantities import format_energy
from tests.helpers.ledgers import last_state_of, read_records, total_of
from tests.helpers.nodes import torchruns, two_torchruns
from tests.helpers.powercap import limits, packages
from tests.helpers.processes import green, run_to_the_end
from tests.helpers.traces import two_windows, write_trace

SCRIPT = "tests/run/nodes_script.py"
CLOCK = "simulated:start=2024-05-02T00:00:00+00:00,batch=600,checkpoint=60,restart=300"
KW = 0.3 + 0.2
BATCH = 600 / 3600  # hours
BATCHES = 10  # of each of two epochs
pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def start(folder, devices=1, before=(), **variables):
    """Train on two nodes; return the exit codes of both and what they printed. ``before`` precedes node 1's line."""
    variables |= {"LIGHTNING_GREEN_CLOCK": CLOCK, "LIGHTNING_GREEN_RESUME": "1"}
    variables |= {"LIGHTNING_GREEN_RUN_DIR": str(folder / "run")}
    return two_torchruns(SCRIPT, folder, devices, devices=devices, before=before, **variables)


def ended(folder, rank=0):
    return json.loads((folder / f"rank{rank}.json").read_text())


def check_sums(folder, hours):
    """See that each node's energy is its power times ``hours``, and that everything that is shown is the sum."""
    records = read_records(folder / "run")
    totals = total_of(records)
    assert totals.by_node[0].joules / 3.6e6 == pytest.approx(0.3 * hours, rel=1e-3)
    assert totals.by_node[1].joules / 3.6e6 == pytest.approx(0.2 * hours, rel=1e-3)
    assert totals.kwh == pytest.approx(KW * hours, rel=1e-3)
    assert totals.grams() == pytest.approx(400.0 * KW * hours, rel=1e-3)
    assert totals.unpriced_joules == 0.0
    summary = ended(folder)["summary"]
    assert summary == ended(folder, 1)["summary"]  # every rank is printed
    assert summary["energy/kwh"] == pytest.approx(totals.kwh, rel=1e-3)
    assert summary["carbon/gco2e"] == pytest.approx(totals.grams(), rel=1e-3)
    assert summary["energy/nodes"] == 2
    assert sum(totals.seconds_by_state[one] for one in ("running", "held", "throttled")) == pytest.approx(3600 * hours)
    shown = status_text(RunDirectory(folder / "run"))
    assert f"Energy    {format_energy(totals.kwh)}" in shown
    assert "Nodes     2: " in shown
    return totals, summary


def last_row(folder):
    lines = (folder / "csv" / "0" / "metrics.csv").read_text().splitlines()
    names = lines[0].split(",")
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    return [row for row in rows if row["energy/kwh"]][-1]


@pytest.mark.nightly
def test_a_planned_exit_and_its_return_keep_the_sum_true(tmp_path):
    codes, printed = start(tmp_path, STOP="exit@7")
    assert codes == [0, 0], printed
    records = read_records(tmp_path / "run")
    assert {record["event"] for record in records} >= {"paused", "node_paused"}
    codes, printed = start(tmp_path)
    assert codes == [0, 0], printed
    hours = 2 * BATCHES * BATCH + (60 + 300) / 3600  # with the checkpoint to leave with, and the restart
    totals, summary = check_sums(tmp_path, hours)
    names = sorted(path.name for path in (tmp_path / "run").glob("ledger.*"))
    assert names == [f"ledger.{node_name()}.{node}.jsonl" for node in (0, 1)]
    assert totals.exits == summary["carbon/exits"] == 1
    assert totals.joules_by_phase["restart"] / 3.6e6 == pytest.approx(KW * (300 + 60) / 3600)
    assert float(last_row(tmp_path)["energy/kwh"]) == pytest.approx(totals.kwh, rel=1e-3)
    epochs = ended(tmp_path)["seen"]
    assert epochs[-1] == pytest.approx([KW * BATCHES * BATCH, 4 / (KW * 1000 * 600)], rel=1e-3)
    run_now = summary["carbon/counterfactual_gco2e"]
    assert run_now == pytest.approx(400 * (KW * hours - totals.joules_by_phase["restart"] / 3.6e6), rel=1e-3)


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("stop", ["kill@9", "kill-1@9"])
def test_a_kill_loses_no_more_than_the_last_sample_and_the_state_of_every_node_is_restored(stop, tmp_path):
    trees = [packages(tmp_path / "trees" / str(node), watts=(200,)) for node in (0, 1)]
    throttled = {
        "TRACE": write_trace(tmp_path / "trace.csv", [100, *[600] * 10]),
        "TREES": str(tmp_path / "trees"),
        "HOLD": "1.0",
        "PRICE": "350",
        "EVERY": "30m",
    }
    codes, _ = start(tmp_path, STOP=stop, **throttled)
    assert all(codes)
    records = read_records(tmp_path / "run")
    assert last_state_of(records)["event"] in ("started", "failed", "interrupted")
    before = total_of(records)
    hours = [before.by_node[0].joules / 0.3 / 3.6e6, before.by_node[1].joules / 0.2 / 3.6e6]
    assert hours[1] > 0.5
    assert abs(hours[0] - hours[1]) < 0.5  # a sample every 15 simulated minutes
    assert limits(trees[1]) == [150.0]  # nobody could bring it back
    codes, printed = start(tmp_path, **throttled)
    assert codes == [0, 0], printed
    assert (
        "RAPL power limit was still throttled after its process had ended; its original state is restored." in printed
    )
    assert [limits(tree) for tree in trees] == [[200.0], [200.0]]
    records = read_records(tmp_path / "run")
    after = total_of([record for record in records if record["attempt"] == 2])
    assert after.by_node[0].joules / 0.3 == pytest.approx(after.by_node[1].joules / 0.2, rel=1e-3)
    everything = total_of(records)
    assert everything.kwh == pytest.approx(before.kwh + after.kwh, rel=1e-6)  # what was spent before the kill is there
    assert ended(tmp_path)["summary"]["energy/kwh"] == pytest.approx(everything.kwh, rel=1e-3)
    assert ended(tmp_path)["at"] == 2 * BATCHES


@pytest.mark.nightly
def test_two_ranks_on_each_of_two_nodes_with_the_tracker_alone(tmp_path):
    codes, printed = start(tmp_path, devices=2, ALONE="1")
    assert codes == [0, 0], printed
    totals, _ = check_sums(tmp_path, 2 * BATCHES * BATCH)
    assert len(list((tmp_path / "run").glob("ledger.*"))) == 2  # one a node, not a rank
    assert set(totals.joules) == {"other"}
    for rank in range(4):  # no node counts twice
        assert ended(tmp_path, rank)["seen"] == [
            pytest.approx([KW * BATCHES * BATCH, 4 * 2 / (KW * 1000 * 600)], rel=1e-3) for _ in range(2)
        ]


def test_a_node_that_does_not_see_the_folder_is_named_and_the_training_goes_on(tmp_path):
    unshare = shutil.which("unshare")
    hidden = tmp_path / "run"
    hidden.mkdir()
    line = [unshare, "-m", "sh", "-c", f'mount -t tmpfs none {hidden} && exec "$@"', "sh"]
    if unshare is None or subprocess.run([*line, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let a process mount a file system of its own")
    codes, printed = start(tmp_path, before=line)
    assert codes == [0, 0], printed
    assert printed.count("does not see the run directory") == 1
    assert "so its energy is in no total" in printed
    records = read_records(hidden)
    assert any("does not see" in record["reason"] for record in records if record["event"] == "warning")
    totals = total_of(records)
    assert {number: node.joules for number, node in totals.by_node.items()} == {0: pytest.approx(totals.kwh * 3.6e6)}


@pytest.mark.nightly
def test_a_hold_draws_the_hold_power_of_both_nodes(tmp_path):
    trace = write_trace(tmp_path / "trace.csv", [50, 2000, 2000, *[50] * 60])
    codes, printed = start(tmp_path, TRACE=trace, HOLD="0.3", PRICE="30")
    assert codes == [0, 0], printed
    totals = total_of(read_records(tmp_path / "run"))
    held = totals.seconds_by_state["held"] / 3600  # counted once, not once a node
    late = 2.0 - held  # of the two dirty hours: the batch or the checkpoint that was under way when they began
    assert 0.0 <= late < BATCH
    assert totals.joules_by_state["held"] / 3.6e6 == pytest.approx(0.3 * KW * held, rel=1e-3)
    assert totals.by_node[1].joules / totals.by_node[0].joules == pytest.approx(2 / 3, rel=1e-3)
    running = totals.seconds_by_state["running"] / 3600
    assert 2 * BATCHES * BATCH <= running < 2 * BATCHES * BATCH + 0.25  # with checkpoints every half an hour
    assert totals.kwh == pytest.approx(KW * running + 0.3 * KW * held, rel=1e-3)
    clean, dirty = KW * (running - late), KW * late + 0.3 * KW * held
    assert totals.grams() == pytest.approx(50 * clean + 2000 * dirty, rel=1e-3)
    assert ended(tmp_path)["summary"]["carbon/hours_waited"] == pytest.approx(held)


def test_all_nodes_change_level_at_the_same_batch_by_the_power_of_all(tmp_path):
    trees = [packages(tmp_path / "trees" / str(node), watts=(200,)) for node in (0, 1)]
    trace = write_trace(tmp_path / "trace.csv", [100, 600, 600, *[100] * 60])
    # with the 500 W of both nodes the level pays above 467 gCO2e/kWh; with the 300 W of the first, above 778
    codes, printed = start(tmp_path, TRACE=trace, HOLD="1.0", PRICE="350", TREES=str(tmp_path / "trees"))
    assert codes == [0, 0], printed
    first, second = (ended(tmp_path, rank)["limits"] for rank in (0, 1))
    assert first == second
    assert set(first) == {150, 200}
    assert sum(before != after for before, after in pairwise(first)) == 2
    assert [limits(tree) for tree in trees] == [[200.0], [200.0]]  # as they were found
    assert not list((tmp_path / "run").glob("throttle.*"))
    records = read_records(tmp_path / "run")
    for node in (0, 1):
        own = [record for record in records if record.get("node_rank", 0) == node and "state" in record]
        states = {record["state"] for record in own}
        assert states == {"running", "throttled"}
    totals = total_of(records)
    assert full_power(totals) == pytest.approx(500.0, rel=1e-3)
    assert totals.by_node[1].joules / totals.by_node[0].joules == pytest.approx(2 / 3, rel=1e-3)


def test_the_supervisor_starts_both_nodes_again_once_electricity_is_clean(tmp_path):
    trace = write_trace(tmp_path / "trace.csv", two_windows())
    first, second = torchruns(SCRIPT, tmp_path, 1)
    both = f"{shlex.join(second)} & {shlex.join(first)}; wait"
    line = green("run", "--run-dir", tmp_path / "run", "--clock", CLOCK, "--", "bash", "-c", both)
    code, printed = run_to_the_end(line, tmp_path, 400, TRACE=trace, ON_PAUSE="auto", GLOO_SOCKET_IFNAME="lo")
    assert code == 0, printed
    records = read_records(tmp_path / "run")
    for node, events in ((0, ["started", "paused"]), (1, ["node_started", "node_paused"])):
        written = [one["event"] for one in records if one.get("node_rank", 0) == node]
        assert [one for one in written if one in events] == [*events, events[0]]
    totals = total_of(records)
    assert totals.exits == 1
    assert totals.hours_waited == totals.seconds_by_state["out"] / 3600 > 3
    assert totals.by_node[1].joules / totals.by_node[0].joules == pytest.approx(2 / 3, rel=1e-3)
    assert ended(tmp_path)["summary"]["energy/kwh"] == pytest.approx(totals.kwh, rel=1e-3)
    assert ended(tmp_path)["summary"]["carbon/saving_pct"] > 50
