"""Stop trainings on many data pipelines, and compare each with the uninterrupted training.

    python benchmarks/pipelines.py --json

Each pipeline of `data_pipelines/` trains a small network for four epochs, in forks of a process that has imported the
libraries:

    straight    twice without an interruption
    stopped     by a SIGTERM after three random batches, each time in a new process that continues, and then to its end

Pipelines of packages that are not installed are skipped. `--extra DIR` names a folder with more packages, for example
of `pip install --no-deps --target extra/site-packages torchdata datasets litdata webdataset albumentations monai`. Its
path has to contain `site-packages`, by which the pickler of Hugging Face recognizes packages.

Figures:

    pipelines           pipelines that were run
    exact               the stopped training has the samples and losses of all batches, the metrics, and the weights and
                        states of the optimizer of the straight one; it was saved at each stop and continued there
    reported            the same, but a message reported that the run is saved between epochs only or is only metered,
                        before the first stop that was not saved
    silent              the stopped training has other results
    failed              a process ended with an error, or a state was not saved and no message reported it
    not_reproducible    the two straight trainings differ; such a pipeline is not stopped
    skipped             pipelines of packages that are not installed
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from run_records import Outcome, json_lines, last_line, ledger_events, reported_before_stop, unsaved_stops_reported
from zygote import ROOT, Job, Zygote

SCRIPT = Path(__file__).resolve().parent / "data_pipelines" / "training.py"
CLOCK = "simulated:start=2024-05-02T00:00:00+00:00,batch=60,checkpoint=0,restart=0"
STOPS = 3
LIMIT = 120.0  # seconds of one process
VERDICTS = ("exact", "reported", "silent", "failed", "not_reproducible", "skipped")
PACKAGES = ("torch", "torchdata", "datasets", "litdata", "mosaicml-streaming", "webdataset", "albumentations", "monai")
PRELOADED = (
    "lightning.pytorch",
    "lightning_green.callbacks",
    "datasets",
    "torchdata.stateful_dataloader",
    "litdata",
    "streaming",
    "webdataset",
    "albumentations",
    "monai",
)


@dataclass
class Row:
    """The result of one pipeline.

    Attributes:
        pipeline: Its name.
        verdict: One of `VERDICTS`.
        reason: Message of the run, or how the results differ.
        stops: Batches after which the processes were stopped.
        saved: Stops at which the state was saved.
        seconds: Duration of all runs.

    """

    pipeline: str
    verdict: str = "skipped"
    reason: str = ""
    stops: tuple[int, ...] = ()
    saved: int = 0
    seconds: float = 0.0


class Runs:
    """The runs of one pipeline.

    Args:
        name: Name of the pipeline.
        folder: Directory of all its runs.
        zygote: Process in whose forks they run.

    """

    def __init__(self, name: str, folder: Path, zygote: Zygote) -> None:
        self.name, self.folder, self._zygote = name, folder, zygote

    def start(self, run: str, stop: int = 0) -> int:
        """Start the training, or continue it; return the exit code of the process."""
        folder = self.folder / run
        folder.mkdir(parents=True, exist_ok=True)
        variables = {"LIGHTNING_GREEN_RUN_DIR": str(folder / "run"), "LIGHTNING_GREEN_RESUME": "1", "STOP": str(stop)}
        return self._zygote.run([Job(SCRIPT, folder, folder / "log", (self.name,), variables)], LIMIT).codes[0]

    def outcome(self, run: str) -> Outcome:
        """Return what a run has ended with."""
        folder = self.folder / run
        return Outcome(json_lines(folder / "results.jsonl"), set(map(tuple, json_lines(folder / "batches.jsonl"))))

    def last_line(self, run: str) -> str:
        """Return the last line of the output of a run."""
        return last_line(self.folder / run / "log")


def judge(name: str, folder: Path, zygote: Zygote, seed: int) -> Row:
    """Run one pipeline, and compare."""
    began, runs = time.monotonic(), Runs(name, folder, zygote)
    row = Row(name)
    codes = [runs.start("straight"), runs.start("again")]
    reference = runs.outcome("straight")
    batches = range(1, max(len(reference.batches), STOPS + 1))
    row.stops = tuple(sorted(random.Random(f"{seed} {name}").sample(batches, STOPS)))
    if any(codes) or not reference.results:
        row.verdict, row.reason = "failed", f"straight, exit codes {codes}: {runs.last_line('straight')}"
    elif difference := reference.difference(runs.outcome("again")):
        row.verdict, row.reason = "not_reproducible", difference
    else:
        codes = [runs.start("stopped", stop) for stop in (*row.stops, 0)]
        events = ledger_events(folder / "stopped" / "run")
        row.saved = sum(event["event"] == "checkpoint" and event["reason"] == "SIGTERM" for event in events)
        row.verdict, row.reason = verdict(codes, row.saved, events, reference.difference(runs.outcome("stopped")))
        if any(codes):
            row.reason += f": {runs.last_line('stopped')}"
    row.seconds = round(time.monotonic() - began, 1)
    return row


def verdict(codes: list[int], saved: int, events: list[dict[str, Any]], difference: str) -> tuple[str, str]:
    """Return the verdict of a stopped training, and the reason.

    Args:
        codes: Exit codes of its processes; each but the last one was stopped.
        saved: Stops at which the state was saved.
        events: Events of its ledger.
        difference: How its outcome differs from the straight one.

    """
    reported, stops = reported_before_stop(events), len(codes) - 1
    if any(codes):
        return "failed", f"exit codes {codes}"
    if difference:
        return "silent", f"{difference} {reported}".strip()
    if reported:
        return "reported", reported
    unsaved, late = unsaved_stops_reported(events)
    if saved + unsaved < stops:
        return "failed", f"{saved} of {stops} stops were saved, and {unsaved} reported"
    return ("reported", late) if unsaved else ("exact", "")


def versions() -> dict[str, str]:
    """Return the versions of the installed packages."""
    return {name: version(name) for name in PACKAGES if any(distributions(name=name))}


def table(rows: list[Row]) -> str:
    """Return the rows as a table."""
    lines = [f"{'pipeline':<50} {'result':<17} {'saved':>5}"]
    lines += [f"{row.pipeline:<50} {row.verdict:<17} {row.saved:>5}  {row.reason[:150]}".rstrip() for row in rows]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="pipelines to run")
    parser.add_argument("--seed", type=int, default=0, help="of the stops")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the directories of all runs here")
    parser.add_argument("--extra", type=Path, metavar="DIR", help="folder with more packages")
    parser.add_argument("--data", help="not needed")
    arguments = parser.parse_args()
    began = time.monotonic()
    extra = [] if arguments.extra is None else [str(arguments.extra.absolute())]
    sys.path += extra
    path = os.pathsep.join([str(ROOT), *extra])
    from data_pipelines.samples import PIPELINES, missing
    from data_pipelines.training import load_pipelines

    load_pipelines()
    chosen = arguments.only or list(PIPELINES)
    if unknown := set(chosen) - set(PIPELINES):
        parser.error(f"unknown pipelines: {', '.join(sorted(unknown))}")
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="pipelines-") as temporary,
        Zygote(preload=PRELOADED, variables={"LIGHTNING_GREEN_CLOCK": CLOCK, "PYTHONPATH": path}) as zygote,
    ):
        base = (arguments.keep or Path(temporary)).absolute()
        for name in chosen:
            shutil.rmtree(base / name, ignore_errors=True)
            rows.append(Row(name) if missing(name) else judge(name, base / name, zygote, arguments.seed))
            row = rows[-1]
            row.reason = row.reason or ", ".join(missing(name))
            print(f"{name}: {row.verdict}, {row.seconds} s. {row.reason}", file=sys.stderr, flush=True)
    counts = Counter(row.verdict for row in rows)
    found = {
        "pipelines": len(rows) - counts["skipped"],
        **{name: counts[name] for name in VERDICTS},
        "stops": sum(len(row.stops) for row in rows if row.verdict != "skipped"),
        "seconds": round(time.monotonic() - began, 1),
        "versions": versions(),
        "n": len(rows) - counts["skipped"],
        "rows": [asdict(row) for row in rows],
    }
    if arguments.json:
        print(json.dumps(found))
    else:
        print(table(rows), *(f"{name}: {value}" for name, value in found.items() if name != "rows"), sep="\n")


if __name__ == "__main__":
    main()
