"""``lightning-green meters`` on this machine, which has a processor."""

import json
import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.cli.meters import describe
from lightning_green.energy.survey import MeteredComponent, Survey


def run(*arguments):
    return CliRunner().invoke(app, ["meters", "--seconds", "0.5", *arguments])


def test_prints_a_line_for_each_component():
    result = run("--meter", "auto:node")
    assert result.exit_code == 0, result.output
    first, *lines = result.stdout.splitlines()
    assert first.startswith("Meter auto on ")
    assert [line.split()[0] for line in lines[:3]] == ["gpu", "cpu", "ram"]
    assert lines[1].split()[1] in ("measured", "modelled")
    assert " W " in lines[1]


def test_json():
    found = json.loads(run("--meter", "250", "--json").stdout)
    (other,) = found["components"]
    assert (other["component"], other["quality"], other["source"]) == ("other", "modelled", "constant")
    assert other["watts"] == pytest.approx(250, rel=0.5)


def test_exits_with_1_if_nothing_is_measured():
    result = run("--meter", "none")
    assert result.exit_code == 1
    assert "cpu    not counted" in result.stdout


def test_unknown_meter_is_wrong_usage():
    result = run("--meter", "rappel")
    assert result.exit_code == 2
    assert "`--meter rappel` cannot be used" in result.stderr


def test_remedy_share_and_problems_are_named():
    cpu = MeteredComponent("cpu", "modelled", "codecarbon, share of the job", 12.34)
    gpu = MeteredComponent("gpu", "unavailable", "NVML", None)
    lines = describe(Survey("node7", "auto", 3.0, (cpu, gpu), ("GPU 0 is a MIG instance.",), "sudo chmod o+r file"))
    assert lines[0] == "Meter auto on node7, 3 s"
    assert lines[1].split() == ["gpu", "unavailable", "NVML"]
    assert lines[2].split() == ["cpu", "modelled", "12.3", "W", "codecarbon,", "share", "of", "the", "job"]
    assert lines[3].split() == ["ram", "not", "counted"]
    assert 'meter="auto:node"' in lines[4]
    assert lines[5:] == ["  Note: GPU 0 is a MIG instance.", "  To read the CPU's sensor: sudo chmod o+r file"]


@pytest.mark.slow
def test_command_ends_by_itself():
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    code = "from lightning_green.cli.main import app; app(['meters', '--seconds', '0.5'])"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cpu" in done.stdout
