"""Interrupt random user scripts, and compare every fit with that of the uninterrupted script.

    python benchmarks/identity.py --scripts 300 --seed 0 --json

Each of N scripts is random: one to four fits, in sequence, in a loop, in threads, or in several processes that a
shell or Python driver starts; see `random_scripts/`. It runs twice, each time on the same simulated clock:

    reference   without a supervisor and without a fault, in a fork of a process that has imported the libraries
    live        under the real `lightning-green run`, with planned exits while the grid is dirty, and up to two faults

Faults strike once each, at a batch of a fit, before or after a fit, or at the end of the script:

    sigkill, sigterm    the process signals itself
    exception           the script raises
    supervisor          SIGKILL of the supervisor; then the same command line again
    everything          SIGKILL of the supervisor and of all processes below it; then the same command line again

If the supervisor ends with an error, the same command line is started again, at most three times.

Figures:

    exact            scripts that ended with 0 and in which each report of each fit equals the reference: weights,
                     metrics, epoch, step, best checkpoint and learning rate
    mistaken         scripts in which a report differs from the reference or belongs to another fit
    skipped          scripts that ended with 0 without the report of some fit
    false_success    scripts that ended with 0 without the report of some fit, or with a fit that is not finished in its
                     ledger
    failed           scripts that could not be brought to exit code 0
    continued        fits of which a ledger reports a start from a step above 0
    not_continued    starts of a fit from the beginning although an unfinished start before it had saved a state
    attempts_total   starts of a run, over all ledgers
    faults           faults that struck, by kind, and planned exits (`pause`)

A script may count under several of these; `exact` excludes the others. The directory of each script that is not exact,
or has a start that did not continue, is kept, and `--only I` repeats script I.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import queue
import shutil
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from identity_runs import Live, run_plain, run_reference, zygote_of_references
from identity_verdicts import Verdict, read_ledgers, read_results
from random_scripts import Scenario, files_of, scenario
from zygote import Zygote

VERDICTS = ("exact", "mistaken", "skipped", "false_success", "failed")


def judge(made: Scenario, folder: Path, zygote: Zygote, arguments: argparse.Namespace) -> Verdict:
    """Run one script twice and compare."""
    began, verdict = time.monotonic(), Verdict(made, folder)
    reference, live = folder / "reference", folder / "live"
    for directory in (reference, live):
        directory.mkdir(parents=True)
        for name, text in files_of(made).items():
            (directory / name).write_text(text)
    code = run_reference(made, reference, zygote)
    wanted = read_results(reference)
    expected = {process.prefix + label for process in made.processes() for label, _, _ in made.fit_labels()}
    if code or not expected <= {line["fit"] for lines in wanted.values() for line in lines}:
        verdict.add("failed", f"the reference ended with exit code {code}")
    elif arguments.reference_only:
        if code := run_plain(made, live, green=arguments.reference == "green"):
            verdict.add("failed", f"the script ended with exit code {code}")
        verdict.compare(wanted, read_results(live))
    else:
        run = Live(made, live, arguments.limit)
        if code := run.run():
            verdict.add("failed", "the time limit was reached" if run.late else f"exit code {code}")
        verdict.ledgers = read_ledgers(run.runs)
        verdict.faults = Counter({**Counter(run.struck()), "pause": verdict.ledgers.pauses})
        verdict.compare(wanted, read_results(live))
        if not code:
            for reason in verdict.ledgers.unfinished:
                verdict.add("false_success", reason)
        verdict.reasons += [f"not continued: {reason}" for reason in verdict.ledgers.not_continued]
    if not verdict.counts:
        verdict.counts.add("exact")
    verdict.seconds = time.monotonic() - began
    return verdict


def figures(verdicts: list[Verdict], seconds: float) -> dict[str, Any]:
    """Return the figures of all scripts."""
    counts = Counter(count for verdict in verdicts for count in verdict.counts)
    faults = sum((verdict.faults for verdict in verdicts), Counter())
    return {
        "scripts": len(verdicts),
        **{name: counts[name] for name in VERDICTS},
        "seconds": round(seconds, 1),
        "faults": dict(sorted(faults.items())),
        "attempts_total": sum(verdict.ledgers.attempts for verdict in verdicts),
        "continued": sum(verdict.ledgers.continued for verdict in verdicts),
        "not_continued": sum(len(verdict.ledgers.not_continued) for verdict in verdicts),
        "n": len(verdicts),
    }


def show(verdict: Verdict, number: int, of: int) -> None:
    """Print the progress, and why a script is not exact."""
    ledgers = verdict.ledgers
    print(
        f"[{number}/{of}] script {verdict.made.index} {'+'.join(sorted(verdict.counts))}, {verdict.seconds:.0f} s, "
        f"{ledgers.attempts} attempts, {ledgers.continued} continued: {verdict.made.describe()}",
        *(f"    {reason}" for reason in verdict.reasons),
        *([f"    kept in {verdict.folder}"] if verdict.folder.exists() else []),
        sep="\n",
        file=sys.stderr,
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scripts", type=int, default=20, metavar="N", help="random scripts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="scripts at a time")
    parser.add_argument("--json", action="store_true", help="print one JSON object at the end")
    parser.add_argument("--only", type=int, metavar="I", help="run script I alone, and keep its directory")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the directories of scripts not exact are kept")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds that one supervised script may take")
    parser.add_argument(
        "--reference",
        choices=("green", "none"),
        default="green",
        help="whether the reference has the callbacks",
    )
    parser.add_argument(
        "--reference-only", action="store_true", help="compare with plain `python` instead of the supervisor"
    )
    parser.add_argument("--data", help="not needed")
    arguments = parser.parse_args()
    began = time.monotonic()
    base = (arguments.keep or Path(tempfile.mkdtemp(prefix="identity-"))).absolute()
    indices = range(arguments.scripts) if arguments.only is None else [arguments.only]
    zygotes: queue.Queue[Zygote] = queue.Queue()

    def one(index: int) -> Verdict:
        folder = base / f"script{arguments.seed}-{index}"
        shutil.rmtree(folder, ignore_errors=True)
        zygote = zygotes.get()
        try:
            return judge(scenario(arguments.seed, index), folder, zygote, arguments)
        finally:
            zygotes.put(zygote)

    verdicts: list[Verdict] = []
    with contextlib.ExitStack() as stack:
        for _ in range(min(arguments.jobs, len(indices))):
            zygotes.put(stack.enter_context(zygote_of_references(green=arguments.reference == "green")))
        pool = stack.enter_context(ThreadPoolExecutor(arguments.jobs))
        for done in as_completed([pool.submit(one, index) for index in indices]):
            verdicts.append(done.result())
            if not verdicts[-1].reasons and arguments.only is None:
                shutil.rmtree(verdicts[-1].folder)
            show(verdicts[-1], len(verdicts), len(indices))
    with contextlib.suppress(OSError):
        base.rmdir()  # every script was exact
    found = figures(verdicts, time.monotonic() - began)
    print(json.dumps(found) if arguments.json else "\n".join(f"{name}: {value}" for name, value in found.items()))


if __name__ == "__main__":
    main()
