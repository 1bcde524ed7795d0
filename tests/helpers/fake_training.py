"""A training that writes its ledger as a real one does, and starts in a tenth of a second.

python fake_training.py SCRIPT...

One word for each start of the run selects what that start does: ``pause``, ``soon`` (a pause of 15 seconds),
``budget`` (a pause until a budget is raised),
``finish``, ``steps:N`` (N new steps, then a kill), ``die`` (an exception before the training), ``fail`` (an exception
in it), ``kill``, ``import`` (a module that is missing), ``nothing`` (a script without our callbacks), ``term`` (waits
for SIGTERM and records it), ``print`` (the same, and prints all the time), ``lines`` (prints many lines, then
finishes), ``slow`` (waits for a file ``go`` in its folder, then finishes), ``late`` (finishes, then exits with 7),
``crash`` (finishes, then dies of SIGSEGV). The last word is repeated.
"""

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.utilities.clock import SystemClock, clock_from_environment
from tests.helpers.ledgers import make_event, read_records


def main(words):
    path = Path(os.environ["LIGHTNING_GREEN_RUN_DIR"])
    with open(path / "starts", "a") as starts:
        starts.write(f"{os.environ.get('WANDB_RUN_ID', '')}\n")
    number = len((path / "starts").read_text().splitlines())
    word = words[min(number, len(words)) - 1]
    if word == "nothing":
        return 0
    if word == "import":
        import a_module_that_is_missing  # noqa: F401
    if word == "die":
        raise RuntimeError("no such data set")
    folder = RunDirectory(path)
    folder.lock("run")
    clock = clock_from_environment() or SystemClock()
    clock.bind(path)
    past = read_records(path)
    attempt = max((record["attempt"] for record in past), default=0) + 1
    step = max((record.get("global_step", 0) for record in past), default=0)
    ledger = Ledger(path, clock, attempt)
    common = {"state": "running", "phase": "training", "joules": {}}
    ledger.append(make_event("started", global_step=step, reason="", **common))
    clock.advance("batch")
    if word in ("pause", "soon"):
        until = (clock.now() + (timedelta(hours=5) if word == "pause" else timedelta(seconds=15))).isoformat()
        ledger.append(make_event("paused", global_step=step + 3, until=until, reason="dirty now", **common))
        return 75
    if word == "budget":
        ledger.append(
            make_event("paused", global_step=step + 3, reason="A budget is used.", remedy="Raise it.", **common)
        )
        return 75
    if word.startswith("steps:"):
        ledger.append(make_event("sample", global_step=step + int(word[6:]), reason="", **common))
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if word == "fail":
        ledger.append(make_event("failed", global_step=step, reason="RuntimeError: loss is nan", **common))
        raise RuntimeError("loss is nan")
    if word == "lines":
        for number in range(2000):
            print(number, "x" * 100, flush=True)
    if word in ("term", "print"):
        stopped = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: stopped.append(number))
        (path / "waiting").touch()
        while not stopped:
            time.sleep(0.01)
            if word == "print":
                print("a step", flush=True)
        ledger.append(make_event("interrupted", global_step=step + 2, reason="stopped", **common))
        return 0
    if word == "slow":
        (path / "waiting").touch()
        while not (path / "go").exists():
            time.sleep(0.01)
    if not (path / "checkpoints" / "fit0-final.ckpt").exists():
        step += 4
    (path / "checkpoints" / "fit0-final.ckpt").touch()
    ledger.append(make_event("finished", global_step=step, reason=f"{step} steps done", **common))
    if word == "late":
        return 7
    if word == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    ledger.append(make_event("ended", fit=None))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
