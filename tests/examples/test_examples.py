"""Every example runs as a user would start it: in a process of its own, in a folder of its own."""

import re
import sys

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.ledgers import read_records, total_of

from .helpers import EXAMPLES, read_wandb, start

CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=600,checkpoint=20,restart=300"
SUPERVISED = ("-m", "lightning_green", "run", "--run-dir", "run", "--clock", CLOCK, "--", sys.executable)


def only_run(folder):
    """Return the ledger of the one run below ``folder``."""
    (ledger,) = folder.rglob("ledger.*.jsonl")
    return read_records(ledger.parent)


@pytest.mark.slow
def test_minimal(tmp_path):
    printed = start(tmp_path, EXAMPLES / "minimal.py")
    assert "y = 1.99 x + 1.00" in printed
    records = only_run(tmp_path)
    (finished,) = [record for record in records if record["event"] == "finished"]
    assert finished["reason"] == "80 steps done"
    assert total_of(records).grams() > 0


@pytest.mark.slow
def test_minimal_leaves_and_comes_back_under_the_supervisor(tmp_path):
    printed = start(tmp_path, *SUPERVISED, EXAMPLES / "minimal.py")
    assert "y = 1.99 x + 1.00" in printed
    totals = total_of(read_records(tmp_path / "run"))
    assert totals.exits >= 1
    assert totals.attempts == totals.exits + 1
    assert totals.hours_waited > 1.0
    assert totals.elapsed_hours < 36.0


@pytest.mark.slow
def test_cli(tmp_path):
    start(tmp_path, EXAMPLES / "cli.py", "fit", "--config", EXAMPLES / "cli.yaml")
    records = only_run(tmp_path)
    assert {record["pue"] for record in records if "pue" in record} == {1.2}
    deadlines = {record["deadline"] for record in records if record["event"] == "decision"}
    assert len(deadlines) == 1
    assert [record["reason"] for record in records if record["event"] == "finished"] == ["80 steps done"]


@pytest.mark.nightly
@pytest.mark.slow
def test_wandb_offline_is_one_run_over_its_restarts(tmp_path):
    printed = start(tmp_path, *SUPERVISED, EXAMPLES / "wandb_offline.py", "--out", "out", "--epochs", "5")
    exits = total_of(read_records(tmp_path / "run")).exits
    assert exits >= 1
    parts = sorted((tmp_path / "out" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(parts) == exits + 1
    ids, steps = set(), []
    for part in parts:
        found, logged = read_wandb(part)
        ids |= found
        steps += [row["trainer/global_step"] for row in logged if "train/loss" in row]
    assert len(ids) == 1
    assert steps == list(range(3, 80, 4))  # every fourth of 80 steps once, over all processes
    assert re.search(rf"for part in \S+(?: \S+){{{exits}}}; do wandb sync --yes --id {ids.pop()} ", printed)


@pytest.mark.slow
def test_k_fold(tmp_path):
    printed = start(tmp_path, *SUPERVISED, EXAMPLES / "k_fold.py", "1")
    assert re.search(r"accuracy of each fold: 0\.\d{4} 0\.\d{4} 0\.\d{4}", printed)
    finished = [record["fit"] for record in read_records(tmp_path / "run") if record["event"] == "finished"]
    assert finished == [0, 1, 2]


@pytest.mark.slow
def test_cifar10_with_all_callbacks(tmp_path):
    printed = start(tmp_path, EXAMPLES / "cifar10.py", "--random", "--epochs", "10", "--width", "8")
    teacher, student = (int(one.replace(",", "")) for one in re.findall(r"([\d,]+) parameters", printed))
    assert student < teacher / 4  # half of the channels, and half of those removed
    assert (tmp_path / "student_int8.onnx").stat().st_size > 1000
    finished = [record["fit"] for record in only_run(tmp_path) if record["event"] == "finished"]
    assert finished == [0, 1]


@pytest.mark.slow
def test_text_model_exits_and_resumes(tmp_path):
    options = ("--epochs", "1", "--length", "64", "--deadline", "36h")
    printed = start(tmp_path, *SUPERVISED, EXAMPLES / "text.py", *options)
    assert re.search(r"validation loss \d\.\d{3} after [\d,]+ tokens", printed)
    assert total_of(read_records(tmp_path / "run")).exits >= 1


@pytest.mark.distributed
def test_ddp_exits_and_resumes_on_both_ranks(tmp_path):
    options = ("--devices", "2", "--accelerator", "cpu", "--deadline", "36h")
    printed = start(tmp_path, *SUPERVISED, EXAMPLES / "ddp.py", *options)
    assert "80 steps on 2 ranks" in printed
    assert total_of(read_records(tmp_path / "run")).exits >= 1


@pytest.mark.slow
def test_notebook_runs_from_top_to_bottom(tmp_path):
    notebook = nbformat.read(EXAMPLES / "notebook.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)  # small diffs, and nothing that is out of date
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    text = "".join(one.get("text", "") for cell in notebook.cells for one in cell.get("outputs", []))
    assert "all weights are equal, bit by bit" in text
    assert float(re.search(r"so ([\d.]+) % are saved", text)[1]) > 5.0
    figures = [one for cell in notebook.cells for one in cell.get("outputs", []) if "image/png" in one.get("data", {})]
    assert len(figures) == 1
    assert "<html" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_budget_of_a_sweep(tmp_path):
    printed = start(tmp_path, *SUPERVISED, EXAMPLES / "budget.py", "--kwh", "5", "--watts", "300", "--epochs", "2")
    assert len(re.findall(r"^trial \d: ", printed, re.MULTILINE)) == 4  # three of 1.6 kWh, and a part of another
    assert re.search(r"5\.\d+ kWh of 5\.000 kWh \(10\d\.\d %\) by 1 run in", printed)  # one process, so one run
