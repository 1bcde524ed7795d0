"""Starting real processes, waiting for what they do, and killing them."""

import os
import signal
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from pathlib import Path

MAIN_JOB = Path(__file__).with_name("main_job.py")
ROOT = Path(__file__).parents[2]


def environment(**variables):
    """Return this process's environment, with the package to be found and ``variables`` set."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("LIGHTNING_GREEN_")}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    fixed = {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    return inherited | fixed | variables


def green(*arguments):
    """Return the command line of ``lightning-green ...``."""
    return [sys.executable, "-m", "lightning_green", *map(str, arguments)]


class Process:
    """A process with what it prints in a file; it and all that it has started are killed when the block ends."""

    def __init__(self, command, folder, **variables):
        folder.mkdir(parents=True, exist_ok=True)
        self._mark = uuid.uuid4().hex
        self.output = folder / f"output.{len(list(folder.glob('output.*')))}"
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(
                list(map(str, command)),
                cwd=folder,
                env=environment(TEST_PROCESS=self._mark, **variables),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        while left := self.left():  # also those that a killed one has just started
            for pid in left:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
        self.process.wait()

    def left(self, *words):
        """Return the processes that this one has started and itself, with ``words`` in their command lines."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                line, variables = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
                if self._mark.encode() in variables and all(str(word).encode() in line for word in words):
                    found.append(int(folder.name))
        return found

    @property
    def printed(self):
        """Output of the process so far."""
        return self.output.read_text(errors="replace")

    def kill(self, number=signal.SIGKILL):
        """Send a signal to this process alone, and wait for its end."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def wait(self, seconds=120):
        """Wait for the end; return the exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s:\n{self.printed}") from None

    def until(self, happened, seconds=90):
        """Wait until ``happened()`` is true, which it has to become before the process ends."""
        limit = time.monotonic() + seconds
        while not (found := happened()):
            if self.process.poll() is not None or time.monotonic() > limit:
                raise AssertionError(f"it did not happen (exit code {self.process.poll()}):\n{self.printed}")
            time.sleep(0.02)
        return found


def run_to_the_end(command, folder, seconds=120, **variables):
    """Run a command; return its exit code and all that it printed."""
    with Process(command, folder, **variables) as process:
        code = process.wait(seconds)
        return code, process.printed
