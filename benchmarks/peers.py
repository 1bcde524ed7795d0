"""The cost and the accuracy of the tools that meter a training: codecarbon, carbontracker, Zeus and ours.

    python benchmarks/peers.py --json [--quick] [--n 10] [--device cuda]

One small training with steps of about 5 ms runs with nothing, with each tool as its documentation describes it
(``peers_cases.py``), with `EmissionsTracker` alone, and with `EmissionsTracker` and `CarbonScheduler`. Each figure is
an object with a value for every case. A value that was not measured is null, and ``reasons`` contains the reason.
Figures:

    step_ratio        time of a step over one with nothing. The trainings are alive in one process and take turns, as in
                      ``overhead.py``: the median of ``n`` sessions, with its 95 % bootstrap interval. It contains the
                      work of a tool in the thread of the training. A thread in the background slows down all
                      trainings of the process, and is part of ``total_s`` only
    start_s           seconds from the start of a process to the first training step, minus those with nothing: imports,
                      creation, and the search for sensors. In this row and the next four, processes of the cases take
                      turns, and a value is the median of the differences of a round
    end_s             seconds from the start of the last step to the end of the process, minus those with nothing
    total_s           seconds of the whole process, minus those with nothing
    cpu_s             CPU seconds of the whole process, minus those with nothing: other programs hardly change them
    memory_mib        peak resident memory of the process, minus that with nothing
    error_pct         difference between the energy that a tool reports for a training and the increase of a counter
                      from the first step to the return of ``fit``, in percent of the latter. One step in the middle
                      waits
    killed_pct        energy of a process that was killed with SIGKILL, as far as it is part of the energy that is
                      reported after the same command has run again, in percent of the increase of the counter from its
                      first step to the kill. All files that a tool has written are added up. Ours continues the run
                      (``LIGHTNING_GREEN_RESUME=1``), as it does under ``lightning-green run``
    restarts          whether ``killed_pct`` is at least 50
    waiting           whether at least half of the energy of the step that waits is reported
    idle              whether the energy of devices that stay allocated between two processes is reported. The value is
                      that of the experiment of ``killed_pct``, with a pause between the two processes. With
                      `CarbonScheduler` it is that of a planned exit in an allocation that keeps the devices, on a
                      simulated clock; that energy is modeled

The counter is the energy counter of the first GPU (``--device cuda``), RAPL if it is readable, or else a directory like
that of RAPL, whose one package has a power of 200 W plus a sine of 100 W. The processes see this directory as
``/sys/class/powercap``, in a mount namespace of their own (``unshare``), so that every tool reads it with its own
unchanged code. Errors are then those of the code and not of a sensor. Only the energy of the CPU (``cuda``: the GPU) is
compared, because that of the memory is modeled. Ours counts all energy of the machine, as the others do
(``meter="auto:node"``). The energy of carbontracker is taken from its logs, without the PUE of 1.58 in its total.
"""

from __future__ import annotations

import argparse
import compileall
import contextlib
import dataclasses
import io
import json
import logging
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from peers_cases import CASES
from peers_processes import LIMIT, ROOT, Processes, can_mount, kill, powercap_tree
from peers_training import Options, counted
from step_times import STEP_SECONDS, interval, take_turns, work_for

LABELS = {
    "nothing": "nothing",
    "codecarbon": "codecarbon",
    "carbontracker": "carbontracker",
    "zeus": "Zeus",
    "tracker": "`EmissionsTracker`",
    "tracker_scheduler": "and `CarbonScheduler`",
}
ROWS = {
    "step_ratio": ("Time of a step of 5 ms, ratio", "{:.3f}"),
    "start_s": ("Added before the first step, s", "{:.1f}"),
    "end_s": ("Added after the last step, s", "{:.1f}"),
    "total_s": ("Added to the whole process, s", "{:.1f}"),
    "cpu_s": ("Added CPU time of the whole process, s", "{:.1f}"),
    "memory_mib": ("Added peak memory, MiB", "{:.0f}"),
    "error_pct": ("Error of the energy, %", "{:.2f}"),
    "killed_pct": ("Energy of a killed process that is reported, %", "{:.0f}"),
    "restarts": ("Restarts are counted", "{}"),
    "waiting": ("Waiting in process is counted", "{}"),
    "idle": ("Idle devices between two processes are counted", "{}"),
}


@dataclasses.dataclass
class Sizes:
    """How long the experiments take.

    Args:
        sessions: Sessions of the step ratio, and rounds of processes.
        pairs: Blocks of a training in a session.
        steps: Steps of the training of which the start, the end and the memory count.
        metered: Seconds of the training whose energy counts.
        killed: Seconds of training after which a process is killed; 0 for no such process.
        pause: Seconds until it starts again.

    """

    sessions: int = 10
    pairs: int = 8
    steps: int = 1000
    metered: float = 20.0
    killed: float = 18.0
    pause: float = 5.0


def readable(counter: str) -> bool:
    """Whether a counter of this machine can be read."""
    try:
        return bool(counted(counter))
    except Exception:  # noqa: BLE001 no sensor
        return False


class Benchmark:
    """Measures all figures, and collects the reasons of values that are null."""

    def __init__(self, sizes: Sizes, device: str, folder: Path, cases: Sequence[str]) -> None:
        self.sizes, self.folder = sizes, folder
        self.accelerator = "gpu" if device == "cuda" else "cpu"
        self.missing = {name: reason for name, case in CASES.items() if (reason := case.missing())}
        self.missing |= {name: "not selected" for name in CASES if name not in {"nothing", *cases}}
        self.cases = [name for name in CASES if name not in self.missing]
        self.work = work_for(STEP_SECONDS, self.accelerator, on_device=True)
        self.figures: dict[str, dict[str, Any]] = {figure: dict.fromkeys(CASES) for figure in ROWS}
        self.reasons: dict[str, dict[str, str]] = {figure: dict(self.missing) for figure in ROWS}
        for figure in ("error_pct", "killed_pct", "restarts", "waiting", "idle"):
            self.reasons[figure]["nothing"] = "measures nothing"
        self.details: dict[str, Any] = {}

    def options(self, name: str, **given: Any) -> Options:
        """Return the options of a training."""
        return Options(name, self.work, accelerator=self.accelerator, **given)

    # -- step ratio ---------------------------------------------------------------------------------------------------

    def measure_steps(self) -> None:
        """Measure the time of a step in trainings that take turns."""
        ratios: dict[str, list[float]] = {name: [] for name in self.cases}
        plain: list[float] = []
        for session in range(self.sizes.sessions):
            order = self.cases if session % 2 == 0 else self.cases[::-1]
            with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(io.StringIO()):
                made = [CASES[case](self._created(Path(name) / case), 1) for case in order]
                found = take_turns(
                    [case.callbacks for case in made],
                    self.sizes.pairs,
                    10,
                    self.work,
                    50,
                    [case.around() for case in made],
                    self.accelerator,
                    on_device=True,
                )
            times = {case: blocks.wall for case, blocks in zip(order, found, strict=True)}
            plain += times["nothing"]
            for case in self.cases:
                ratios[case].append(
                    statistics.median(a / b for a, b in zip(times[case], times["nothing"], strict=True))
                )
        self.figures["step_ratio"] |= {case: statistics.median(found) for case, found in ratios.items()}
        self.details["step_ratio_interval"] = {case: interval(found) for case, found in ratios.items()}
        self.details["step_ms"] = 1e3 * statistics.median(plain)

    @staticmethod
    def _created(folder: Path) -> Path:
        folder.mkdir()
        return folder

    # -- processes ----------------------------------------------------------------------------------------------------

    def measure_processes(self) -> None:
        """Measure the start, the end and the memory of processes."""
        processes = Processes(self.folder)
        rows = ("start_s", "end_s", "total_s", "cpu_s", "memory_mib")
        added: dict[str, dict[str, list[float]]] = {row: {name: [] for name in self.cases} for row in rows}
        for number in range(self.sizes.sessions):
            values: dict[str, tuple[float, ...]] = {}
            for name in self.cases if number % 2 == 0 else self.cases[::-1]:
                folder = self.folder / f"process{number}" / name
                found = processes.run(folder, self.options(name, steps=self.sizes.steps))
                values[name] = (
                    found["first_step"] - found["began"],
                    found["ended"] - found["last_step"],
                    found["ended"] - found["began"],
                    found["cpu_s"],
                    found["peak_mib"],
                )
            for name in self.cases:
                for row, own, plain in zip(rows, values[name], values["nothing"], strict=True):
                    added[row][name].append(own - plain)
        for row in rows:
            self.figures[row] |= {name: statistics.median(found) for name, found in added[row].items()}
            self.details[f"{row}_interval"] = {name: interval(found) for name, found in added[row].items()}

    # -- energy -------------------------------------------------------------------------------------------------------

    def measure_energy(self) -> None:
        """Compare the energy with a counter, with and without a restart."""
        wanted = "nvml" if self.accelerator == "gpu" else "rapl"
        if readable(wanted):
            self.details["counter"] = wanted
            self._compare(Processes(self.folder), wanted)
        elif wanted == "rapl" and can_mount(self.folder / "tried"):
            self.details["counter"] = "a directory like that of RAPL"
            with powercap_tree(self.folder / "tree") as powercap:
                self._compare(Processes(self.folder, powercap), wanted)
        else:
            self.details["counter"] = None
            reason = "no counter is readable here" + ("" if wanted == "nvml" else ", and no mount namespace is allowed")
            for figure in ("error_pct", "killed_pct", "restarts", "waiting", "idle"):
                for name in self.cases:
                    self.reasons[figure].setdefault(name, reason)

    def _compare(self, processes: Processes, counter: str) -> None:
        common = {"counter": counter, "whole_node": True, "epochs": 2}
        wait = self.sizes.metered / 6
        for name in self.cases[1:]:
            try:
                steps = round((self.sizes.metered - wait) / 2 / STEP_SECONDS)
                options = self.options(name, steps=steps, wait=wait, **common)
                found = processes.run(self.folder / "energy" / name, options)
                self._note_error(name, found, wait)
                if not self.sizes.killed:
                    for figure in ("killed_pct", "restarts", "idle"):
                        self.reasons[figure][name] = "not part of --quick"
                    continue
                steps = round(0.6 * self.sizes.killed / STEP_SECONDS)
                self._kill_and_restart(processes, name, self.options(name, steps=steps, **common))
                if name == "tracker_scheduler":
                    self._exit_and_restart(name)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                for figure in ("error_pct", "waiting", "killed_pct", "restarts", "idle"):
                    if self.figures[figure][name] is None:
                        self.reasons[figure][name] = str(error)

    def _note_error(self, name: str, found: dict[str, float], wait: float) -> None:
        if found["joules"] is None:
            for figure in ("error_pct", "waiting"):
                self.reasons[figure][name] = "reports no energy of this component"
            return
        true = found["until"] - found["from"]
        seconds = found["last_step"] - found["first_step"]
        missing = (true - found["joules"]) / true
        self.figures["error_pct"][name] = 100 * abs(missing)
        self.figures["waiting"][name] = missing < 0.5 * wait / seconds

    def _kill_and_restart(self, processes: Processes, name: str, options: Options) -> None:
        folder = self.folder / "killed" / name
        process = processes.start(folder, options)
        try:
            first = self._train_for(process, folder, self.sizes.killed)
        finally:
            kill(process)
        time.sleep(self.sizes.pause)
        # The variable is in the message of a start; `lightning-green run` sets it
        second = processes.run(folder, options, LIGHTNING_GREEN_RESUME="1")
        if second["joules"] is None:
            for figure in ("killed_pct", "restarts", "idle"):
                self.reasons[figure][name] = "reports no energy of this component"
            return
        killed = first["until"] - first["from"]
        again = second["until"] - second["from"]
        between = second["from"] - first["until"]
        rest = second["joules"] - again  # what is reported of the killed process, and of the time between both
        self.figures["killed_pct"][name] = 100 * rest / killed
        self.figures["restarts"][name] = rest >= 0.5 * killed
        self.figures["idle"][name] = rest >= killed + 0.5 * between
        self.details.setdefault("killed", {})[name] = {
            "killed_j": killed,
            "again_j": again,
            "between_j": between,
            "reported_j": second["joules"],
        }

    def _exit_and_restart(self, name: str) -> None:
        folder = self.folder / "exited"
        supervisor = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(folder / "run")]
        clock = ["--clock", "simulated:start=2024-05-02T00:00:00Z,batch=600,restart=300", "--"]
        options = Options("planned_exit", steps=12, epochs=2, counter="none")
        idle = Processes(folder).run(folder, options, [*supervisor, *clock], KUBERNETES_SERVICE_HOST="10.0.0.1")
        self.figures["idle"][name] = bool(idle["joules"])
        self.details["idle_j"] = idle["joules"]

    @staticmethod
    def _train_for(process: subprocess.Popen[bytes], folder: Path, seconds: float) -> dict[str, float]:
        """Return the progress of a training some seconds after its first step."""
        progress, limit = folder / "progress.json", time.monotonic() + LIMIT
        while time.monotonic() < limit and process.poll() is None:
            time.sleep(0.05)
            if progress.exists():
                found = json.loads(progress.read_text())
                if time.monotonic() - found.get("first_step", math.inf) >= seconds:
                    return json.loads(progress.read_text())
        raise RuntimeError("the training ended before it was killed")

    def result(self) -> dict[str, Any]:
        """Return all figures, with what is needed to read them."""
        return {
            **self.figures,
            "reasons": self.reasons,
            **self.details,
            "versions": {name: case.version() for name, case in CASES.items() if case.package},
            "n": self.sizes.sessions,
            "date": date.today().isoformat(),
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)),
            "device": torch.cuda.get_device_name() if self.accelerator == "gpu" else "cpu",
        }


def cpu_model() -> str:
    """Return the name of the CPU."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def table(result: dict[str, Any]) -> str:
    """Return the figures as a table in Markdown."""
    names = [name for name in CASES if name != "nothing"]
    lines = ["| | " + " | ".join(LABELS[name] for name in names) + " |", "|---|" + "--:|" * len(names)]
    for figure, (label, form) in ROWS.items():
        cells = [cell(result[figure][name], form, result["reasons"][figure].get(name)) for name in names]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(value: float | bool | None, form: str, reason: str | None) -> str:
    """Return a value of the table."""
    if value is None:
        return reason or "not measured"
    return ("yes" if value else "no") if isinstance(value, bool) else form.format(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter trainings, with large uncertainties")
    parser.add_argument("--n", type=int, help="sessions of the step ratio, and rounds of processes")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--only", nargs="+", choices=["steps", "processes", "energy"], help="parts to measure")
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES], help="tools to measure")
    arguments = parser.parse_args()

    sizes = Sizes(1, 3, 100, 6.0, 0.0) if arguments.quick else Sizes()
    if arguments.n is not None:
        sizes.sessions = arguments.n
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    compileall.compile_dir(ROOT / "lightning_green", quiet=1)  # as an installation does
    with tempfile.TemporaryDirectory() as name:
        benchmark = Benchmark(sizes, arguments.device, Path(name), arguments.cases)
        parts = {
            "steps": benchmark.measure_steps,
            "processes": benchmark.measure_processes,
            "energy": benchmark.measure_energy,
        }
        # Out of time, it kills its trainings and prints what it has.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("out of time"))
        try:
            for part in arguments.only or parts:
                print(f"{part} ...", file=sys.stderr)
                parts[part]()
        except SystemExit as reason:
            benchmark.details["ended_early"] = str(reason)
        result = benchmark.result()
    print(json.dumps(result) if arguments.json else table(result))


if __name__ == "__main__":
    main()
