"""The main job on two simulated days: one training run now, and the same training when electricity is clean.

Both are examples/digits.py under the real supervisor, ``lightning-green run``, with the same seed. Only the clock is
simulated, so that two days pass in seconds: the second run really exits its process and resumes in a new one. Energy
on that clock is modeled (a constant power). At the end the same training is metered in real time.

    make demo
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.ledger.account import total
from lightning_green.ledger.events import CheckpointSaved, Event, Started
from lightning_green.ledger.ledger import read_ledger
from lightning_green.report import html_page, read_run_report
from lightning_green.report.timeline import timeline

SCRIPT = Path(__file__).with_name("digits.py")
ZONE, WATTS, DEADLINE = "DE", 300, "48h"
CLOCK = "simulated:start=2024-05-02T16:00:00+00:00,batch=110,checkpoint=20,restart=300"
MODELED = f"modeled: a constant power of {WATTS} W on the simulated clock, a quarter of it while held"


def start(name: str, command: Sequence[str], environment: dict[str, str], folder: Path, console: Console) -> None:
    """Run a command to its end; show what concerns the green part of it, and keep everything in a file."""
    log = folder / "output.log"
    with (
        open(log, "w", encoding="utf-8") as file,
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
    ):
        assert process.stdout is not None
        for line in process.stdout:
            file.write(line)
            shown = line.strip()
            if shown.startswith("lightning-green: Exited until"):
                until = shown.removeprefix("lightning-green: Exited until ").partition(" UTC")[0]
                shown = f"The process has ended; the supervisor waits until {until} UTC and starts a new one."
            elif not shown.startswith("Lightning Green, step"):
                continue
            console.print(f"   [dim]{shown}[/dim]", highlight=False, soft_wrap=True)
    if process.returncode:
        tail = "".join(log.read_text(encoding="utf-8").splitlines(keepends=True)[-25:])
        raise SystemExit(f"{tail}\nThe {name} ended with exit code {process.returncode}; its output: {log}")


def script(folder: Path, *options: str) -> list[str]:
    """Return the command line of the training."""
    return [sys.executable, str(SCRIPT), "--out", str(folder), "--grid", f"typical:{ZONE}", *options]


def supervised(folder: Path, command: Sequence[str]) -> list[str]:
    """Return the command line of the training under the supervisor, on the simulated clock."""
    run = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(folder / "run"), "--clock", CLOCK]
    return [*run, "--", *command]


def result_of(folder: Path) -> dict[str, Any]:
    """Return what a run came to: the totals of its ledger, and the result that the script wrote."""
    totals = total(read_ledger(folder / "run"))
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    wandb_folders = sorted((folder / "wandb").glob("offline-run-*"))
    return {
        "energy_kwh": totals.kwh,
        "energy_quality": dict(totals.quality),
        "gco2e": totals.grams(),
        "wall_hours": totals.elapsed_hours,
        "hours_waited": totals.hours_waited,
        "accuracy": result["accuracy"],
        "exits": totals.exits,
        "attempts": totals.attempts,
        "steps": result["steps"],
        "weights_sha256": result["weights_sha256"],
        "wandb_run_ids": sorted({path.name.rsplit("-", 1)[-1] for path in wandb_folders}),
        "wandb_files": len(wandb_folders),
    }


def exit_positions(events: Sequence[Event]) -> list[list[int]]:
    """Return [epoch, batch] of each planned exit."""
    saved = [event for event in events if isinstance(event, CheckpointSaved) and event.reason == "exit"]
    return [event.position for event in saved if event.position is not None]


def steps_lost(events: Sequence[Event]) -> int:
    """Return the optimizer steps that had to be repeated, over all restarts."""
    lost, done, attempt = 0, 0, 0
    for event in events:
        step = event.global_step or 0
        if isinstance(event, Started) and event.attempt != attempt:
            attempt = event.attempt
            lost += done - step
            done = step
        done = max(done, step)
    return lost


def table(run_now: dict[str, Any], carbon_aware: dict[str, Any]) -> Table:
    """Return both runs side by side."""
    made = Table(title="The same training, twice", title_style="bold", caption=f"Energy is {MODELED}.")
    made.add_column("")
    for heading in ("run-now baseline", "carbon-aware", "change"):
        made.add_column(heading, justify="right")

    def percent(key: str) -> str:
        return f"{100.0 * (carbon_aware[key] / run_now[key] - 1.0):+.1f} %"

    for label, key, form, change in (
        ("Energy (modeled), kWh", "energy_kwh", "{:.3f}", percent("energy_kwh")),
        ("Emissions, gCO2e", "gco2e", "{:.0f}", percent("gco2e")),
        ("Hours from start to end", "wall_hours", "{:.1f}", ""),
        ("  of them waiting", "hours_waited", "{:.1f}", ""),
        ("Accuracy", "accuracy", "{:.4f}", ""),
        ("Planned exits", "exits", "{}", ""),
        ("Processes", "attempts", "{}", ""),
    ):
        made.add_row(label, form.format(run_now[key]), form.format(carbon_aware[key]), change)
    made.add_row("W&B runs", str(len(run_now["wandb_run_ids"])), str(len(carbon_aware["wandb_run_ids"])), "")
    same = run_now["weights_sha256"] == carbon_aware["weights_sha256"]
    made.add_row(
        "Final weights", run_now["weights_sha256"][:8], carbon_aware["weights_sha256"][:8], "" if same else "!"
    )
    return made


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="folder for everything the demo writes")
    out = parser.parse_args().out.absolute()
    began, console = time.monotonic(), Console()
    shutil.rmtree(out, ignore_errors=True)
    folders = {name: out / name for name in ("run_now", "carbon_aware", "real_time")}
    for folder in folders.values():
        folder.mkdir(parents=True)
    foreign = ("LIGHTNING_GREEN_", "WANDB_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    environment |= {"WANDB_SILENT": "true", "WANDB_MODE": "offline"}

    console.print("[bold]1. Run now.[/bold] A small CNN on scikit-learn's digits, from Thursday 16:00 UTC.")
    options = ("--meter", str(WATTS))
    command = script(folders["run_now"], *options)
    start("run", supervised(folders["run_now"], command), environment, folders["run_now"], console)

    console.print(f"[bold]2. The same, carbon-aware,[/bold] with {DEADLINE} of time on a typical day of {ZONE}.")
    command = script(folders["carbon_aware"], *options, "--deadline", DEADLINE)
    start("run", supervised(folders["carbon_aware"], command), environment, folders["carbon_aware"], console)

    console.print("[bold]3. The same in real time,[/bold] metered by codecarbon.")
    real_environment = {**environment, "LIGHTNING_GREEN_RUN_DIR": str(folders["real_time"] / "run")}
    start("training", script(folders["real_time"]), real_environment, folders["real_time"], console)

    run_now, carbon_aware, real = (result_of(folder) for folder in folders.values())
    events, reference = (read_ledger(folders[name] / "run") for name in ("carbon_aware", "run_now"))
    summary = {
        "energy": MODELED,
        "grid": TypicalDay(ZONE).describe(),
        "run_now": run_now,
        "carbon_aware": carbon_aware,
        "saving_percent": 100.0 * (1.0 - carbon_aware["gco2e"] / run_now["gco2e"]),
        "exits": carbon_aware["exits"],
        "exit_positions": exit_positions(events),
        "resumes": carbon_aware["attempts"] - 1,
        "steps_lost": steps_lost(events),
        "weights_equal": run_now["weights_sha256"] == carbon_aware["weights_sha256"],
        "wandb_run_ids": carbon_aware["wandb_run_ids"],
        "real_time": {**real, "weights_equal": real["weights_sha256"] == run_now["weights_sha256"]},
        "demo_seconds": round(time.monotonic() - began, 1),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    timeline(events, reference, TypicalDay(ZONE)).savefig(out / "timeline.png", dpi=160)
    page = html_page([read_run_report(folders["carbon_aware"] / "run")], title="Digits on two simulated days")
    (out / "report.html").write_text(page, encoding="utf-8")
    show(summary, out, console)


def show(summary: dict[str, Any], out: Path, console: Console) -> None:
    """Print what came out; end with an error where the demo is not what it promises."""
    console.print()
    console.print(table(summary["run_now"], summary["carbon_aware"]))
    where = ", ".join(f"epoch {epoch} batch {batch}" for epoch, batch in summary["exit_positions"])
    real = summary["real_time"]
    quality = ", ".join(f"{name} {value}" for name, value in real["energy_quality"].items())
    equal = "are" if summary["weights_equal"] else "are NOT"
    console.print(
        f"The carbon-aware run left its process at {where}, was started again {summary['resumes']} times and lost "
        f"{summary['steps_lost']} steps.\nIts final weights {equal} those of the run that never stopped, bit for bit."
        f"\nIn real time the training took {1000 * real['energy_kwh']:.3f} Wh in "
        f"{3600 * real['wall_hours']:.0f} s (codecarbon: {quality}).",
        highlight=False,
        soft_wrap=True,
    )
    for path in (out / "report.html", out / "timeline.png", out / "summary.json"):
        console.print(f"  {path}", highlight=False, soft_wrap=True)
    kept = summary["steps_lost"] == 0 and summary["weights_equal"] and len(summary["wandb_run_ids"]) == 1
    inside_an_epoch = any(batch > 0 for _, batch in summary["exit_positions"])
    if not (kept and inside_an_epoch and summary["exits"] >= 1 and summary["resumes"] >= 1):
        raise SystemExit("The demo did not come out as it should; see the summary.")


if __name__ == "__main__":
    main()
