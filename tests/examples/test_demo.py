"""The demo and its figures."""

import json

import pytest

from tests.helpers.ledgers import read_records

from .helpers import EXAMPLES, read_wandb, start

pytestmark = pytest.mark.xdist_group("demo")  # its fixture runs once


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """Run the whole demo once; return its folder and its summary."""
    folder = tmp_path_factory.mktemp("demo")
    printed = start(folder, EXAMPLES / "demo.py", "--out", folder / "demo")
    return folder / "demo", json.loads((folder / "demo" / "summary.json").read_text()), printed


@pytest.mark.slow
def test_the_summary_is_what_the_ledgers_say(demo):
    folder, summary, _ = demo
    events = [record["event"] for record in read_records(folder / "carbon_aware" / "run")]
    assert summary["exits"] == events.count("paused") >= 1
    assert summary["resumes"] == events.count("started") - 1 == summary["exits"]
    assert any(batch > 0 for _, batch in summary["exit_positions"])
    assert len(summary["exit_positions"]) == summary["exits"]
    assert "modeled" in summary["energy"]
    for run in (summary["run_now"], summary["carbon_aware"]):
        assert set(run["energy_quality"].values()) == {"modelled"}
        assert run["energy_kwh"] > 0
        assert run["accuracy"] > 0.95
    # both did the same work at 300 W; what the second has on top are its restarts and the checkpoints to leave with
    extra = summary["carbon_aware"]["energy_kwh"] - summary["run_now"]["energy_kwh"]
    assert 0 < extra < 0.3 * (300 + 20 + 110) / 3600 * 2 * summary["exits"]


@pytest.mark.slow
def test_waiting_saves_and_harms_nothing(demo):
    _, summary, _ = demo
    assert summary["steps_lost"] == 0
    assert summary["weights_equal"]
    assert summary["real_time"]["weights_equal"]
    assert summary["carbon_aware"]["gco2e"] < summary["run_now"]["gco2e"]
    assert summary["run_now"]["exits"] == 0
    assert summary["run_now"]["wall_hours"] < summary["carbon_aware"]["wall_hours"] < 48.0


@pytest.mark.slow
def test_wandb_has_one_run_with_every_step_once(demo):
    folder, summary, _ = demo
    for name in ("run_now", "carbon_aware"):
        ids, steps = set(), []
        parts = sorted((folder / name / "wandb").glob("offline-run-*/*.wandb"))
        for part in parts:
            found, rows = read_wandb(part)
            ids |= found
            steps += [row["trainer/global_step"] for row in rows if "train/loss" in row]
        assert len(parts) == summary[name]["attempts"]
        assert sorted(ids) == summary[name]["wandb_run_ids"]
        assert len(ids) == 1
        assert steps == list(range(summary[name]["steps"]))
    assert summary["wandb_run_ids"] == summary["carbon_aware"]["wandb_run_ids"]


@pytest.mark.slow
def test_it_draws_the_timeline_and_prints_the_table(demo):
    folder, summary, printed = demo
    assert (folder / "timeline.png").read_bytes().startswith(b"\x89PNG")
    assert f"{summary['carbon_aware']['gco2e']:.0f}" in printed
    assert "Energy (modeled), kWh" in printed
