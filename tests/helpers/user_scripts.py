"""Scripts like those of users, and functions that start them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from lightning_green.ledger.run_directory import run_directories
from tests.helpers.ledgers import read_records
from tests.helpers.processes import environment, green

HEAD = "import os\nfrom tests.helpers.script_training import *\n"

ONE = """
import sys
pl.seed_everything(int(os.environ.get("SEED", "0")), verbose=False)
lr = float(sys.argv[sys.argv.index("--lr") + 1]) if "--lr" in sys.argv else float(os.environ.get("LR", "0.01"))
module = Net(lr)
one = trainer(*CALLBACKS)
one.fit(module, loader(), loader(8, 1))
report(f"{os.environ.get('SEED', '')}/{lr}", one, module)
"""

K_FOLD = """
pl.seed_everything(0, verbose=False)
for fold in range(2):
    best = pl.callbacks.ModelCheckpoint(f"folds/{fold}", monitor="val_loss")
    stop = pl.callbacks.EarlyStopping("val_loss", patience=9)
    module = Net(label=f"fold {fold}")
    one = trainer(best, stop, *CALLBACKS)
    one.fit(module, loader(20, fold), loader(8, 9))
    report(module.label, one, module, score_of_fold=float(one.callback_metrics["val_loss"]).hex())
"""


ALL = """
for variables in VARIABLES:
    os.environ.update(variables)
    exec(TEXT)
"""


def script(folder, text, callbacks="exact()", name="train.py"):
    """Write a script; return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(HEAD + text.replace("CALLBACKS", callbacks))
    return path


def start(folder, *command, timeout=300, **variables):
    """Run a command in a folder; return its exit code and its output."""
    words = [str(word) for word in command]
    given = environment(PYTHONWARNINGS="ignore", **variables)
    done = subprocess.run(words, cwd=folder, env=given, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


def straight(folder, path, *arguments, **variables):
    """Run a script without an interruption, on the system clock; return its results by label."""
    variables |= {"LIGHTNING_GREEN_CLOCK": "system"}
    code, output = start(folder, sys.executable, path, *arguments, **variables)
    assert code == 0, output
    return results(folder)


def supervised(folder, *command, options=(), **variables):
    """Run a command under the supervisor; return its exit code and its output."""
    return start(folder, *green("run", "--run-dir", folder / "run", *options, "--", *command), **variables)


def results(folder):
    """Return the results of each label, and the number of steps that each process trained.

    A label that is reported several times, after restarts, has to have the same results each time.
    """
    path = Path(folder) / "results.jsonl"
    found, trained = {}, {}
    for line in path.read_text().splitlines() if path.exists() else []:
        one = json.loads(line)
        label = one.pop("label")
        trained.setdefault(label, []).append(one.pop("trained"))
        assert found.setdefault(label, one) == one, f"{label} has two results"
    return found, trained


def runs(folder):
    """Return the events of each run of a command."""
    found = [read_records(path) for path in run_directories(Path(folder))]
    return [records for records in found if records]


def restored(folder):
    """Return the origin of each start of a run, such as ``step 5``; None for a start from the beginning."""
    return [record.get("restored") for records in runs(folder) for record in records if record["event"] == "started"]


def steps_continued(folder):
    """Return the steps from which starts continued."""
    found = [re.fullmatch(r"step (\d+)", text or "") for text in restored(folder)]
    return [int(match[1]) for match in found if match]


PYTHON = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
