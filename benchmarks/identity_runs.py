"""Run one random script of `identity.py`: the reference in a fork, the live run under the supervisor with faults.

Started as a program, this file serves as the process in whose forks the references run.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

from random_scripts import CLOCK, Process, Scenario

ROOT = Path(__file__).resolve().parents[1]
RETRIES = 3  # of the same command line, after the supervisor has ended with an error
REFERENCE_SECONDS = 120
POLL_SECONDS = 0.05


def environment(green: bool = True, **more: str) -> dict[str, str]:
    """Return the environment of a script: without what another run or Lightning's launchers left in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LIGHTNING_GREEN", "FAULT"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', '')}"
    kept |= {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GREEN": "all" if green else "none"}
    return kept | more


class Zygote:
    """A process that has imported the libraries, and runs scripts in forks of itself: a start takes no seconds.

    Args:
        green: Whether the scripts use the callbacks.
        variables: Environment variables; `PRELOAD` names further modules that are imported if they are installed.

    """

    def __init__(self, green: bool, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(green, **{"LIGHTNING_GREEN_CLOCK": CLOCK, **variables}),
            text=True,
        )

    def run(self, script: Path, process: Process, cwd: Path, log: Path) -> int:
        """Run a script once and return its exit code."""
        job = {"script": str(script), "args": process.args, "env": dict(process.env), "cwd": str(cwd), "log": str(log)}
        output = None if process.output is None else str(cwd / process.output)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**job, "output": output}) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline() or 1)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Run the jobs that come over standard input, each in a fork, and write their exit codes to standard output."""
    for name in ("lightning.pytorch", *(["lightning_green.callbacks"] if os.environ["GREEN"] != "none" else [])):
        importlib.import_module(name)
    for name in os.environ.get("PRELOAD", "").split():
        with contextlib.suppress(ImportError), contextlib.redirect_stdout(sys.stderr):
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a fork would copy all pages
    for line in sys.stdin:
        job = json.loads(line)
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            print(os.waitstatus_to_exitcode(status), flush=True)
            continue
        signal.alarm(REFERENCE_SECONDS)
        for path, number in ((job["output"] or job["log"], 1), (job["log"], 2)):
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            os.dup2(file, number)
        os.chdir(job["cwd"])
        os.environ.update(job["env"])
        sys.argv = [job["script"], *job["args"]]
        sys.path[0] = str(Path(job["script"]).parent)
        runpy.run_path(job["script"], run_name="__main__")
        return


def run_reference(made: Scenario, folder: Path, zygote: Zygote) -> int:
    """Run each training of a script once, in the order of its driver; return the first exit code that is not 0."""
    for process in made.processes():
        cwd = folder / process.directory
        cwd.mkdir(exist_ok=True)
        if process.seed is not None:
            (cwd / "seed.txt").write_text(f"{process.seed}\n")
        code = zygote.run(folder / "train.py", process, cwd, folder.with_suffix(".log"))
        if code:
            return code
    return 0


def run_plain(made: Scenario, folder: Path, green: bool) -> int:
    """Run the script as a user does without a supervisor; return its exit code."""
    with open(folder.with_suffix(".log"), "ab") as log:
        given = environment(green, LIGHTNING_GREEN_CLOCK=CLOCK)
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
        given = environment(FAULTS=json.dumps(faults), FAULT_DIR=str(self.folder))
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


if __name__ == "__main__":
    serve()
