"""Trainings of ``peers.py`` in processes of their own, which may see a directory as ``/sys/class/powercap``."""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from energy_truth import RaplTree
from peers_training import POWERCAP, Options

ROOT = Path(__file__).resolve().parents[1]
TRAINING = Path(__file__).with_name("peers_training.py")
LIMIT = 300.0


class Processes:
    """Runs trainings in processes of their own, optionally with a directory as ``/sys/class/powercap``.

    Args:
        folder: Directory of their files.
        powercap: Directory that they see as that of RAPL, or None.

    """

    def __init__(self, folder: Path, powercap: Path | None = None) -> None:
        self.folder, self.powercap = folder, powercap

    def start(self, folder: Path, options: Options, before: Sequence[str] = (), **more: str) -> subprocess.Popen[bytes]:
        """Start a training.

        Args:
            folder: Directory of its options and results.
            options: Options of the training.
            before: Command in front of that of the training.
            **more: Environment variables.

        """
        options.write(folder)
        for name in ("progress.json", "result.json"):
            (folder / name).unlink(missing_ok=True)
        variables = {
            "LIGHTNING_GREEN_RUN_DIR": str(folder / "run"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        }
        command = [*before, sys.executable, str(TRAINING), str(folder)]
        if self.powercap is not None:
            command = [*namespace(self.powercap), *command]
        with (folder / "output.txt").open("ab") as output:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=os.environ | variables | more,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # helper processes of a tool end with it
            )

    def run(self, folder: Path, options: Options, before: Sequence[str] = (), **more: str) -> dict[str, float]:
        """Run a training to its end; return its result with the times of the process. See ``start``."""
        began, used = time.monotonic(), cpu_of_children()
        process = self.start(folder, options, before, **more)
        try:
            code = process.wait(LIMIT)
        finally:
            ended = time.monotonic()
            kill(process)
        if code:
            last = (folder / "output.txt").read_text(errors="replace").strip().splitlines()[-1:]
            raise RuntimeError(f"exit code {code}: {''.join(last)}")
        times = {"began": began, "ended": ended, "cpu_s": cpu_of_children() - used}
        return json.loads((folder / "result.json").read_text()) | times


def cpu_of_children() -> float:
    """Return the CPU seconds of all processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a training and the processes that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def namespace(powercap: Path) -> list[str]:
    """Return the command in front of another one that sees a directory as ``/sys/class/powercap``."""
    target, source = (POWERCAP, powercap) if POWERCAP.exists() else (POWERCAP.parent, powercap.parent)
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--mount", "sh", "-c", f'mount --bind "{source}" {target} && exec "$@"', "sh"]


@contextlib.contextmanager
def powercap_tree(folder: Path) -> Iterator[Path]:
    """Yield a directory like ``/sys/class/powercap`` with one package, whose counter advances."""
    powercap = folder / "class" / "powercap"
    tree = RaplTree(powercap / "intel-rapl", 262_143.328850, (math.inf, math.inf))
    (powercap / "intel-rapl" / "enabled").write_text("1\n")
    (powercap / "intel-rapl" / "subsystem").symlink_to("..")
    (powercap / "intel-rapl:0").symlink_to("intel-rapl/intel-rapl:0")
    try:
        yield powercap
    finally:
        tree.close()


def can_mount(folder: Path) -> bool:
    """Whether a process of this machine may have a mount namespace."""
    (folder / "class" / "powercap").mkdir(parents=True)
    with contextlib.suppress(OSError):
        command = [*namespace(folder / "class" / "powercap"), "true"]
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    return False
