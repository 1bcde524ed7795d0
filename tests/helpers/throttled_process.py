"""Processes that throttle CPU packages and end in different ways."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]


CHILD = """
import os, signal, sys, time
from lightning_green.throttle.actuators.rapl_power_limit import RaplPowerLimit
cap = RaplPowerLimit([100], powercap=sys.argv[1])
cap.bind(__import__("pathlib").Path(sys.argv[2]))
assert cap.set(cap.levels()[-1])
print("throttled", flush=True)
"""


def start(folder, run, ending):
    """Start a process that sets the packages in ``folder`` to 100 W and then executes ``ending``."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD + textwrap.dedent(ending), str(folder), str(run)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "throttled\n", child.stderr.read()
    return child


def kill_throttled_process(folder, run):
    """Throttle the packages in a process that is killed; return the path of its journal."""
    child = start(folder, run, "time.sleep(60)")
    child.kill()
    child.communicate()
    (file,) = run.glob("throttle.*.json")
    return file
