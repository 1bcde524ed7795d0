"""A provider in another package, installed with pip and found by its entry point."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "external_provider"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Install the package into a directory of its own, without the network; return the directory."""
    source = shutil.copytree(PACKAGE, tmp_path_factory.mktemp("source") / "hydro_utility")
    target = tmp_path_factory.mktemp("site-packages")
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", str(target), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return target


def run(installed, *arguments):
    path = os.pathsep.join([str(installed), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, *arguments], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_source_is_found_by_its_name(installed):
    code = """
        import json
        from datetime import datetime, timezone
        from lightning_green import EmissionsTracker
        from lightning_green.grid import build_grid, grid_from_spec
        signal = build_grid("hydro-utility:NO2")
        at = datetime(2026, 1, 15, 10, 20, tzinfo=timezone.utc)
        copy = grid_from_spec(signal.spec())
        EmissionsTracker(grid="hydro-utility:NO2", meter=None)
        print(json.dumps([
            signal.describe(), signal.intensity(at).value, copy.intensity(at).value, signal.spec(),
            build_grid("hydro-utility", zone="NO5").zone, build_grid(["hydro-utility:NO1", 25]).source,
        ]))
    """
    done = run(installed, "-c", textwrap.dedent(code))
    assert done.returncode == 0, done.stderr
    description, value, copied, spec, zone, chained = json.loads(done.stdout)
    assert description == "hydro-utility, average/lifecycle, zone NO2"
    assert value == copied == 30.0
    assert spec == {"class_path": "hydro_utility.HydroSignal", "init_args": {"zone": "NO2"}}
    assert (zone, chained) == ("NO5", "hydro-utility")


def test_source_works_on_the_command_line(installed):
    done = run(installed, "-m", "lightning_green", "grid", "show", "--source", "hydro-utility:NO2", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["now"]["source"] == "hydro-utility"


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("hydro-utility:SE1", '`zone` should be "NO1" to "NO5", got \'SE1\''),
        ("hydro-utility", "`grid` should contain the zone"),
        ("green", "hydro-utility"),  # an unknown name lists the sources
    ],
)
def test_wrong_zone_or_name_is_refused(installed, grid, message):
    done = run(installed, "-m", "lightning_green", "grid", "show", "--source", grid)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
