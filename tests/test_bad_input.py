"""A folder on a file system that is really read-only, and one that is really full, under real trainings.

Root is not bound by permission bits, so the folder lies on a mount of its own, in a namespace of its own.
"""

import subprocess
import sys

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.utilities.clock import clock_from_spec
from tests.helpers.ledgers import make_event, read_records
from tests.helpers.processes import environment

NAMESPACE = ["unshare", "--map-root-user", "--mount", "bash", "-ec"]


def can_mount():
    try:
        tried = [*NAMESPACE, "mount -t tmpfs none /mnt"]
        return subprocess.run(tried, capture_output=True, timeout=20, check=False).returncode == 0
    except OSError:
        return False


pytestmark = pytest.mark.skipif(not can_mount(), reason="this machine lets nobody mount in a namespace of their own")

TRAIN = """
import sys
import lightning.pytorch as pl, torch
from torch.utils.data import DataLoader, TensorDataset
from lightning_green import CarbonScheduler, EmissionsTracker

class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(200, 200)
    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).pow(2).mean()
    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.1)

grid = lambda at: 900.0 if at.hour < 6 else 20.0
green = [EmissionsTracker(meter=300.0, grid=grid),
         CarbonScheduler(deadline="30h", checkpoint_every="10m", hold_power=0.1)]
trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, default_root_dir=sys.argv[1], callbacks=green,
                     enable_checkpointing="saving" in sys.argv, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(Net(), DataLoader(TensorDataset(torch.ones(40, 200))))
print("steps done:", trainer.global_step)
"""
CLOCK = "simulated:start=2024-05-02T00:00:00+00:00,batch=600,checkpoint=0,restart=0"


def mounted(script, *arguments, **variables):
    """Run a shell script with mounts of its own; ``$PYTHON``, ``$TRAIN`` and its arguments are set."""
    settings = environment(PYTHON=sys.executable, TRAIN=TRAIN, LIGHTNING_GREEN_CLOCK=CLOCK, **variables)
    command = [*NAMESPACE, script, "bash", *map(str, arguments)]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout + done.stderr


READ_ONLY = 'mount --bind "$1" "$1"; mount -o remount,ro,bind "$1"; '


@pytest.mark.slow
def test_training_with_a_read_only_run_directory_continues(tmp_path):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder.mkdir()
    code, printed = mounted(
        READ_ONLY + '"$PYTHON" -c "$TRAIN" "$2"', folder, elsewhere, LIGHTNING_GREEN_RUN_DIR=str(folder)
    )
    assert code == 0, printed
    assert "steps done: 40" in printed
    assert f"The run directory {folder} cannot be used (Read-only file system)." in printed
    assert "Training continues without a ledger" in printed
    assert "set LIGHTNING_GREEN_RUN_DIR to another one" in printed
    assert "Traceback" not in printed
    # what was measured is printed all the same: 40 batches of ten minutes at 300 W, and holding at a tenth of that
    assert "Energy     2.155 kWh: other 2.155 kWh (modelled)" in printed
    assert "5 h 10 min of it waiting" in printed
    assert list(folder.iterdir()) == []


def test_supervisor_with_a_read_only_run_directory_reports_what_to_change(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    code, printed = mounted(READ_ONLY + '"$PYTHON" -m lightning_green run --run-dir "$1" -- true', folder)
    assert code == 2
    assert printed == (
        f"lightning-green: The run directory {folder} cannot be written (Read-only file system). Choose another one "
        "with --run-dir.\n"
    )


@pytest.mark.parametrize("event", ["started", "paused"])
def test_the_status_of_a_run_that_may_only_be_read(tmp_path, event):
    """Another user's, for example."""
    clock = clock_from_spec(CLOCK)
    folder = RunDirectory(tmp_path / "run")
    folder.record["clock"] = CLOCK
    folder.save()
    clock.bind(folder.path)
    ledger = Ledger(folder.path, clock, 1)
    ledger.append(make_event("started", global_step=0, state="running"))
    if event == "paused":
        ledger.append(make_event("paused", global_step=7, until="2024-05-02T06:00:00+00:00", state="running"))
    ledger.close()
    code, printed = mounted(READ_ONLY + '"$PYTHON" -m lightning_green status "$1"', folder.path)
    assert code == 0, printed
    assert {"started": "killed at about step 0", "paused": "exited at step 7 until 2024-05-02 06:00 UTC"}[
        event
    ] in printed


@pytest.mark.slow
def test_a_disk_that_is_full_does_not_end_the_training(tmp_path):
    """A tmpfs of 64 KiB: a few lines of the ledger fit, and no checkpoint (a weight matrix alone is 160 KB)."""
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    kept.mkdir()
    script = (
        'mount -t tmpfs -o size=64k none "$1"; "$PYTHON" -c "$TRAIN" "$2" saving; '
        'cp "$1"/run/ledger.*.jsonl "$2"; ls "$1"/run/checkpoints'
    )
    code, printed = mounted(script, disk, kept, LIGHTNING_GREEN_RUN_DIR=str(disk / "run"))
    assert code == 0, printed
    assert "steps done: 40" in printed
    assert "The training state could not be saved" in printed
    assert "Free disk space or fix permissions." in printed
    assert ".ckpt" not in printed.splitlines()[-1]
    assert "Traceback" not in printed
    records = read_records(kept)
    assert records[0]["event"] == "started"
    assert "checkpoint_failed" in {record["event"] for record in records}
    steps = [record["global_step"] for record in records if "global_step" in record]
    assert steps == sorted(steps)
