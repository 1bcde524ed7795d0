"""The table of the benchmark of other tools, the energy in their files, and the counter that their processes see."""

import json
import subprocess
import sys
import time

import pytest

from tests.helpers.processes import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import peers
from peers_cases import CASES, CodeCarbon, Zeus
from peers_training import Options


def test_table_shows_a_reason_in_place_of_a_missing_value():
    figures = {figure: dict.fromkeys(CASES) for figure in peers.ROWS}
    figures["start_s"]["codecarbon"] = 1.26
    figures["restarts"] |= {"codecarbon": False, "tracker": True}
    reasons = {figure: {"zeus": "not installed"} for figure in peers.ROWS}
    lines = peers.table(figures | {"reasons": reasons}).splitlines()
    cells = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines}
    assert cells[peers.ROWS["start_s"][0]] == ["1.3", "not measured", "not installed", "not measured", "not measured"]
    assert cells[peers.ROWS["restarts"][0]][0::3] == ["no", "yes"]
    assert len({line.count("|") for line in lines}) == 1


def test_energy_of_all_processes_is_added_up(tmp_path):
    (tmp_path / "emissions.csv").write_text("cpu_energy,gpu_energy\n0.5,0\n0.25,1\n")
    assert CodeCarbon(tmp_path, 1).joules() == 0.75 * 3.6e6
    assert CodeCarbon(tmp_path, 1, component="gpu").joules() == 3.6e6
    (tmp_path / "zeus.jsonl").write_text("2.0\n3.5\n")
    assert Zeus(tmp_path, 1).joules() == 5.5
    (tmp_path / "zeus.jsonl").write_text("2.0\nnull\n")
    assert Zeus(tmp_path, 1).joules() is None


def test_process_sees_the_counter_and_reports_its_times(tmp_path):
    if not peers.can_mount(tmp_path / "tried"):
        pytest.skip("no mount namespace is allowed")
    with peers.powercap_tree(tmp_path) as powercap:
        began = time.monotonic()
        found = peers.Processes(tmp_path, powercap).run(
            tmp_path / "nothing", Options("nothing", steps=3, wait=0.5, counter="rapl")
        )
    assert began <= found["began"] < found["first_step"] < found["last_step"] < found["ended"]
    assert 0.4 * 100 < found["until"] - found["from"] < (found["ended"] - found["first_step"]) * 300 + 10
    assert found["joules"] is None
    assert found["peak_mib"] > 50


def test_killing_a_training_kills_its_helper_processes():
    script = "import subprocess, sys; print(subprocess.Popen(['sleep', '100']).pid, flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    helper = int(process.stdout.readline())
    peers.kill(process)
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(helper)], capture_output=True, text=True, check=False)
    assert status.stdout.strip()[:1] in {"", "Z"}


def test_options_are_those_of_the_process(tmp_path):
    Options("tracker", steps=7).write(tmp_path / "new")
    assert Options(**json.loads((tmp_path / "new" / "options.json").read_text())) == Options("tracker", steps=7)
