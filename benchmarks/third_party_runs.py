"""The projects of `third_party.py`: their virtual environments, and the runs of their scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from run_records import Outcome, json_lines, last_line, ledger_events

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = Path(__file__).resolve().parent / "third_party_scripts"
START = datetime(2024, 5, 2, tzinfo=timezone.utc)
BATCH_SECONDS = 1200
CLOCK = f"simulated:start={START.isoformat()},batch={BATCH_SECONDS},checkpoint=0,restart=0"
CLEAN, LATER, DIRTY = 20, 60, 900  # gCO2e/kWh; it is higher after the last exit, so that one exit does not skip both
PINNED = ("torch", "lightning", "pytorch-lightning", "torchmetrics")
NEVER = ("nvidia-cublas", "nvidia-cublas-cu12", "nvidia-nccl-cu12", "nvidia-nccl-cu13", "triton")
_VERSIONS = "import json, sys, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


@dataclass(frozen=True)
class Project:
    """A project of the package index.

    Args:
        name: Name of its script.
        requirements: What pip installs; the first one is the project.
        group: Virtual environment; projects of one group have requirements that agree.

    """

    name: str
    requirements: tuple[str, ...]
    group: str = "common"


PROJECTS = (
    Project("bert", ("transformers",)),
    Project("geometric", ("torch_geometric",)),
    Project("darts_nbeats", ("darts[torch]",)),
    Project("darts_tft", ("darts[torch]",)),
    Project("gluonts_deepar", ("gluonts[torch]",)),
    Project("forecasting_tft", ("pytorch-forecasting",)),
    Project("chemprop_mpnn", ("chemprop",)),
    Project("scvi_scvi", ("scvi-tools",)),
    Project("scvi_scanvi", ("scvi-tools",)),
    Project("neuralforecast_nhits", ("neuralforecast",)),
    Project("neuralforecast_auto", ("neuralforecast",)),
)


class Environments:
    """The virtual environments of the groups.

    Args:
        folder: Directory that contains them; those of an earlier run are used again.

    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        pins = [f"{name}=={version(name)}" for name in PINNED]
        self._constraints = folder / "constraints.txt"
        self._constraints.write_text("\n".join([*pins, *(f"{name}<0" for name in NEVER)]) + "\n")

    def python(self, project: Project) -> Path:
        """Install a project; return the interpreter of its environment.

        Raises:
            RuntimeError: If pip fails; with its last message.

        """
        python = self.folder / project.group / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
            self._install(python, "-e", str(ROOT), "pytorch-lightning")
        self._install(python, *project.requirements)
        return python

    def _install(self, python: Path, *what: str) -> None:
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "-q", "-c", str(self._constraints), *what],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "ERROR" in line] or done.stderr.splitlines()
            raise RuntimeError(f"pip: {errors[-1] if errors else 'failed'}")

    @staticmethod
    def versions(python: Path, project: Project) -> dict[str, str]:
        """Return the installed versions of a project and of Lightning."""
        names = [project.requirements[0].partition("[")[0].partition("=")[0], "lightning", "torch"]
        command = [str(python), "-c", _VERSIONS, *names]
        return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


class Runs:
    """The runs of one script, each in a directory of its own.

    Args:
        project: The project.
        python: Interpreter of its environment.
        folder: Directory of all runs.
        limit: Seconds that one run may take.

    """

    def __init__(self, project: Project, python: Path, folder: Path, limit: float) -> None:
        self.project, self.python, self.folder, self.limit = project, python, folder, limit

    def straight(self, name: str, green: bool = True) -> int | None:
        """Run the script without an interruption; return its exit code."""
        return self._run(name, [str(self.python), "train.py"], GREEN="all" if green else "none")

    def live(self, dirty: list[tuple[int, int]], kill_at: int) -> int | None:
        """Run the script under the supervisor; return its exit code."""
        command = [str(self.python), "-m", "lightning_green", "run", "--run-dir", str(self.folder / "run")]
        command += ["--clock", CLOCK, "--", str(self.python), "train.py"]
        return self._run("live", command, dirty, KILL_AT=str(kill_at))

    def check(self) -> dict[str, Any]:
        """Check the script; return the result of the command."""
        command = [str(self.python), "-m", "lightning_green", "check", "--json", "--", str(self.python), "train.py"]
        self._run("check", command)
        for line in reversed((self.folder / "check.log").read_text(errors="replace").splitlines()):
            if line.startswith("{"):
                return json.loads(line)
        return {"verdict": "failed", "reason": self.last_line("check")}

    def _run(self, name: str, command: list[str], dirty: list[tuple[int, int]] = (), **variables: str) -> int | None:  # type: ignore[assignment]
        folder = self.folder / name
        folder.mkdir(parents=True)
        shutil.copy(SCRIPTS / f"{self.project.name}.py", folder / "train.py")
        shutil.copy(SCRIPTS / "recording.py", folder)
        (folder / "trace.csv").write_text(trace(dirty))
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("LIGHTNING_GREEN", "KILL_AT"))}
        kept |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "LIGHTNING_GREEN_CLOCK": CLOCK, **variables}
        with open(self.folder / f"{name}.log", "ab") as log:
            try:
                return subprocess.run(
                    command, cwd=folder, env=kept, stdout=log, stderr=log, timeout=self.limit
                ).returncode
            except subprocess.TimeoutExpired:
                return None

    def outcome(self, name: str) -> Outcome:
        """Return what a run has ended with.

        A process that continues the second fit of a script repeats the report of the first one.
        """
        folder = self.folder / name
        reports: list[Any] = []
        for one in json_lines(folder / "results.jsonl"):
            reports += [one] if one not in reports else []
        return Outcome(reports, set(map(tuple, json_lines(folder / "batches.jsonl"))))

    def last_line(self, name: str) -> str:
        """Return the last line of the output of a run."""
        return last_line(self.folder / f"{name}.log")

    def reported_at_start(self) -> str:
        """Return why the first start-up block of the live run excludes exits; an empty string if it does not."""
        lines = (self.folder / "live.log").read_text(errors="replace").splitlines()
        pauses = next((line.strip() for line in lines if line.strip().startswith("Pauses ")), "")
        return pauses if "(no exit:" in pauses else ""

    def ledger(self) -> list[dict[str, Any]]:
        """Return the events of the live run."""
        return ledger_events(self.folder / "run")


def trace(dirty: list[tuple[int, int]]) -> str:
    """Return the hourly intensities of the grid as CSV; `dirty` are hours (begin, end) since the start."""
    rows = ["datetime,carbon_intensity"]
    for hour in range(-24, 24 * 40):
        value = LATER if dirty and hour >= dirty[-1][1] else CLEAN
        value = DIRTY if any(begin <= hour < end for begin, end in dirty) else value
        rows.append(f"{(START + timedelta(hours=hour)).isoformat()},{value}")
    return "\n".join(rows) + "\n"
