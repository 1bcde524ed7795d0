"""Random user scripts for `identity.py`.

`scenario(seed, index)` draws the choices of one script, and `files_of(scenario)` returns its files: `train.py`,
`trace.csv`, and `drive.sh` or `drive.py` if the command starts several trainings. A script writes one JSON line per fit
to `results.jsonl`, or to standard output if the driver redirects it to a file for each training.

    choices.py    dataclasses of everything that is random about a script and its interruptions
    draw.py       the random draw
    template.py   the part of `train.py` that all scripts share
    training.py   the text of `train.py`
    drivers.py    the text of the driver, and the trace
"""

from __future__ import annotations

from random_scripts.choices import CLOCK, Process, Scenario
from random_scripts.draw import scenario
from random_scripts.drivers import driver_text, trace
from random_scripts.training import render

__all__ = ["CLOCK", "Process", "Scenario", "files_of", "scenario"]


def files_of(made: Scenario) -> dict[str, str]:
    """Return name and text of each file of a script."""
    files = {"train.py": render(made), "trace.csv": trace(made)}
    return files if made.driver is None else {**files, made.driver.file: driver_text(made.driver)}
