"""Interrupt trainings of projects from the package index, and compare each with the uninterrupted training.

    python benchmarks/third_party.py --json

Each project is installed unchanged into a virtual environment, next to this checkout and the same versions of PyTorch
and Lightning as here. Its script in `third_party_scripts/` follows the quickstart of the project, with synthetic data;
the callbacks are passed in the way in which the project lets its users do so. A script runs

    straight    twice without an interruption, and once without the callbacks of Lightning Green
    live        under the real `lightning-green run` on a simulated clock, with two planned exits while the grid is
                dirty, and one SIGKILL
    check       under `lightning-green check`

Figures:

    projects            projects that were run
    exact               the live run ended with the losses of all batches, the metrics, weights and forecasts of the
                        straight run
    reported            the same, but a message before the first exit or kill of a fit reported that the run is saved
                        between epochs only, or is only metered; the latter is killed and has no planned exits
    silent              the live run ended with other results and without such a message
    failed              the live run could not be brought to exit code 0, or was not interrupted as planned
    not_reproducible    the two straight runs differ; such a project is not run live
    unchanged           projects with the same results without the callbacks
    checks_agree        projects in which `lightning-green check` has the result of the live run: exact; exact between
                        epochs, if the run was saved there only; not exact or not saved, if it was only metered
    skipped             projects that could not be installed, with the reason

PyTorch has to be a CPU build here, so that no project pulls in CUDA. If pip finds that build on another index, name it
in `PIP_EXTRA_INDEX_URL`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from run_records import EPOCHS_ONLY, Outcome, reported_before_stop
from third_party_runs import BATCH_SECONDS, PROJECTS, Environments, Project, Runs

DIRTY_HOURS = 6
VERDICTS = ("exact", "reported", "silent", "failed", "not_reproducible", "skipped")


@dataclass
class Row:
    """The result of one project.

    Attributes:
        project: Its name.
        versions: Installed versions of the project and of Lightning.
        verdict: One of `VERDICTS`.
        reason: Why it is not exact.
        batches: Training batches of the straight run.
        exits: Planned exits of the live run.
        kills: Kills of the live run.
        check: Verdict of `lightning-green check`.
        check_reason: Reason of that verdict.
        unchanged: Whether the results are the same without the callbacks.
        seconds: Duration of all runs.

    """

    project: str
    versions: dict[str, str] = field(default_factory=dict)
    verdict: str = "skipped"
    reason: str = ""
    batches: int = 0
    exits: int = 0
    kills: int = 0
    check: str = ""
    check_reason: str = ""
    unchanged: bool = False
    seconds: float = 0.0


def judge(project: Project, environments: Environments, folder: Path, arguments: argparse.Namespace) -> Row:
    """Run one project, and compare."""
    row, began = Row(project.name), time.monotonic()
    try:
        python = environments.python(project)
        row.versions = environments.versions(python, project)
    except (RuntimeError, subprocess.CalledProcessError) as error:
        row.reason = str(error)
        return row
    runs = Runs(project, python, folder, arguments.limit)
    codes = [runs.straight("first"), runs.straight("second"), runs.straight("plain", green=False)]
    reference = runs.outcome("first")
    row.batches = len(reference.batches)
    row.unchanged = runs.outcome("plain") == reference
    if any(codes) or None in codes or not (reference.results and reference.batches):
        row.verdict, row.reason = "failed", f"straight run, exit codes {codes}: {runs.last_line('first')}"
    elif difference := reference.difference(runs.outcome("second")):
        row.verdict, row.reason = "not_reproducible", difference
    else:
        row.verdict, row.reason = _live(runs, row, reference)
        checked = runs.check()
        row.check, row.check_reason = checked["verdict"], checked.get("reason", "")
    row.seconds = round(time.monotonic() - began, 1)
    return row


def _live(runs: Runs, row: Row, reference: Outcome) -> tuple[str, str]:
    """Run the script with exits and a kill; return the verdict and the reason."""
    per_hour, epoch = 3600 / BATCH_SECONDS, max(batch for _, _, batch, *_ in reference.batches) + 1
    length = max(DIRTY_HOURS, round(epoch / per_hour) + 2)  # contains the end of an epoch
    hours = [round(row.batches * part / per_hour) for part in (0.25, 0.55)]
    dirty = [(hour + number * length, hour + (number + 1) * length) for number, hour in enumerate(hours)]
    code = runs.live(dirty, kill_at=round(0.8 * row.batches))
    events = runs.ledger()
    row.exits = sum(event["event"] == "paused" for event in events)
    row.kills = int((runs.folder / "live" / "killed").exists())
    if code != 0:
        return "failed", f"exit code {code}: {runs.last_line('live')}"
    reported = reported_before_stop(events) or runs.reported_at_start()
    return verdict(row, len(dirty), reported, reference.difference(runs.outcome("live")))


def verdict(row: Row, exits: int, reported: str, difference: str) -> tuple[str, str]:
    """Return the verdict of a live run that has finished, and the reason.

    Args:
        row: The project, with the exits and kills of the run.
        exits: Planned exits that are expected if the run can be saved.
        reported: Message before the first stop of a fit, or an empty string.
        difference: How its outcome differs from the straight one.

    """
    if difference:
        return "failed" if reported else "silent", difference
    expected = 0 if reported and not reported.startswith(EPOCHS_ONLY) else exits
    if row.exits < expected or not row.kills:
        return "failed", f"{row.exits} planned exits and {row.kills} kills"
    return ("reported", reported) if reported else ("exact", "")


def _check_agrees(row: Row) -> bool:
    """Return whether the check of a project has the result of its live run."""
    if row.verdict == "exact":
        return row.check == "exact"
    if row.verdict == "reported":
        return row.check in (("exact_at_epochs",) if row.reason.startswith(EPOCHS_ONLY) else ("inexact", "not_saved"))
    return False


def figures(rows: list[Row]) -> dict[str, Any]:
    """Return the figures of all projects."""
    counts = Counter(row.verdict for row in rows)
    ran = [row for row in rows if row.verdict != "skipped"]
    return {
        "projects": len(ran),
        **{name: counts[name] for name in VERDICTS},
        "unchanged": sum(row.unchanged for row in ran),
        "checks_agree": sum(_check_agrees(row) for row in ran),
        "exits": sum(row.exits for row in ran),
        "kills": sum(row.kills for row in ran),
        "n": len(ran),
        "rows": [asdict(row) for row in rows],
    }


def table(found: dict[str, Any]) -> str:
    """Return the figures for people."""
    lines = [f"{'project':<22} {'version':<12} {'result':<17} {'batches':>7} {'exits':>5} {'kills':>5}  check"]
    for row in found["rows"]:
        newest = next(iter(row["versions"].values()), "")
        lines.append(
            f"{row['project']:<22} {newest:<12} {row['verdict']:<17} {row['batches']:>7} {row['exits']:>5} "
            f"{row['kills']:>5}  {row['check']}"
        )
        lines += [f"    {row[name]}" for name in ("reason", "check_reason") if row[name]]
    return "\n".join([*lines, *(f"{name}: {value}" for name, value in found.items() if name != "rows")])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--only", nargs="*", metavar="NAME", help=f"of {', '.join(one.name for one in PROJECTS)}")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the directories of all runs here")
    parser.add_argument("--venv", type=Path, metavar="DIR", help="directory of the virtual environments, to use again")
    parser.add_argument("--limit", type=float, default=900.0, help="seconds that one run of a script may take")
    parser.add_argument("--data", help="not needed")
    arguments = parser.parse_args()
    chosen = [one for one in PROJECTS if not arguments.only or one.name in arguments.only]
    if unknown := set(arguments.only or ()) - {one.name for one in chosen}:
        parser.error(f"unknown projects: {', '.join(sorted(unknown))}")
    if "+cpu" not in version("torch"):
        print(f"PyTorch {version('torch')} is not a CPU build, so projects would pull in CUDA.", file=sys.stderr)
        raise SystemExit(2)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="third-party-") as temporary:
        environments = Environments((arguments.venv or Path(temporary) / "venvs").absolute())
        base = (arguments.keep or Path(temporary) / "runs").absolute()
        for project in chosen:
            shutil.rmtree(base / project.name, ignore_errors=True)
            rows.append(judge(project, environments, base / project.name, arguments))
            last = rows[-1]
            print(f"{last.project}: {last.verdict} {last.reason}, {last.seconds} s", file=sys.stderr, flush=True)
    found = figures(rows)
    print(json.dumps(found) if arguments.json else table(found))


if __name__ == "__main__":
    main()
