"""Run one random script of `identity.py`: the reference in a fork, the live run under the supervisor with faults."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from random_scripts import CLOCK, Scenario
from zygote import Job, Zygote, environment

RETRIES = 3  # of the same command line, after the supervisor has ended with an error
REFERENCE_SECONDS = 120.0
POLL_SECONDS = 0.05


def variables(*, green: bool) -> dict[str, str]:
    """Return the environment variables of a script without a supervisor; `green` is whether it uses the callbacks."""
    return {"GREEN": "all" if green else "none", "LIGHTNING_GREEN_CLOCK": CLOCK}


def zygote_of_references(*, green: bool) -> Zygote:
    """Return the process in whose forks the references run; `green` is whether they use the callbacks."""
    packages = ("lightning.pytorch", *(("lightning_green.callbacks",) if green else ()))
    return Zygote(preload=packages, variables=variables(green=green))


def run_reference(made: Scenario, folder: Path, zygote: Zygote) -> int:
    """Run each training of a script once, in the order of its driver; return the first exit code that is not 0."""
    for process in made.processes():
        cwd = folder / process.directory
        cwd.mkdir(exist_ok=True)
        if process.seed is not None:
            (cwd / "seed.txt").write_text(f"{process.seed}\n")
        output = None if process.output is None else cwd / process.output
        job = Job(folder / "train.py", cwd, folder.with_suffix(".log"), process.args, dict(process.env), output)
        code = zygote.run([job], REFERENCE_SECONDS).codes[0]
        if code:
            return code
    return 0


def run_plain(made: Scenario, folder: Path, *, green: bool) -> int:
    """Run the script as a user does without a supervisor; return its exit code."""
    with open(folder.with_suffix(".log"), "ab") as log:
        given = environment(**variables(green=green))
        return subprocess.run(made.command, cwd=folder, env=given, stdout=log, stderr=log).returncode


class Live:
    """One script under the real supervisor, with its faults.

    Args:
        made: The script.
        folder: Its directory; the run directory is next to it.
        limit: Seconds after which everything is killed.

    Attributes:
        starts: Times that the command line was started.
        late: Whether the time limit was reached.

    """

    def __init__(self, made: Scenario, folder: Path, limit: float) -> None:
        self.made, self.folder = made, folder
        self.runs = folder.with_name("runs")
        self.starts, self.late = 0, False
        self._until = time.monotonic() + limit
        self._mark = f"FAULT_DIR={folder}"

    def run(self) -> int:
        """Start the command line until it ends with 0, or has ended with an error too often; return the exit code."""
        errors = 0
        try:
            while True:
                code = self._start()
                if code is None and not self.late:
                    continue
                if code == 0 or self.late or errors == RETRIES:
                    return 1 if code is None else code
                errors += 1
        finally:
            self._kill_all()

    def _start(self) -> int | None:
        """Run the command line once; return its exit code, or None where a fault has killed the supervisor."""
        self.starts += 1
        command = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(self.runs / "run")]
        faults = [[fault.kind, fault.place, fault.label, fault.step] for fault in self.made.faults]
        given = environment(GREEN="all", FAULTS=json.dumps(faults), FAULT_DIR=str(self.folder))
        with open(self.folder.with_suffix(".log"), "ab") as log:
            log.write(f"--- start {self.starts}\n".encode())
            log.flush()
            supervisor = subprocess.Popen(
                [*command, "--clock", CLOCK, "--", *self.made.command],
                cwd=self.folder,
                env=given,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while supervisor.poll() is None:
            if time.monotonic() > self._until:
                self.late = True
                supervisor.kill()
            for number, fault in enumerate(self.made.faults):
                marker = self.folder / f"fault{number}"
                asked = fault.kind in ("supervisor", "everything") and marker.exists()
                if asked and not marker.with_suffix(".done").exists():
                    supervisor.kill()
                    supervisor.wait()
                    if fault.kind == "everything":
                        self._kill_all()
                    marker.with_suffix(".done").touch()
                    return None
            time.sleep(POLL_SECONDS)
        return None if self.late else supervisor.returncode

    def struck(self) -> list[str]:
        """Return the kinds of the faults that struck."""
        return [
            fault.kind for number, fault in enumerate(self.made.faults) if (self.folder / f"fault{number}").exists()
        ]

    def _kill_all(self) -> None:
        """Kill the remaining processes of this script: every process that has its directory in the environment."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError, ProcessLookupError):
                if self._mark.encode() in path.read_bytes().split(b"\0"):
                    os.kill(int(path.parent.name), signal.SIGKILL)
