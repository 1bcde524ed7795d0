"""Real scripts, started by the check as users start them."""

import hashlib
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from lightning_green.check import Check, CheckFailedError, Verdict
from lightning_green.check.check import _difference

SCRIPT = """
import random
import sys
import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

KIND = sys.argv[1]
if KIND.endswith("with callbacks"):
    import lightning_green.callbacks
COUNT = 0
torch.set_num_threads(1)


class Data(Dataset):
    def __init__(self):
        self.x, self.generator = torch.randn(64, 4), random.Random(0)

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return self.x[index] + (self.generator.random() if KIND == "worker generator" else 0)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.1), nn.Linear(4, 1))

    def on_train_epoch_start(self):
        global COUNT
        if KIND == "counter of the epoch":
            COUNT = 0

    def training_step(self, batch, batch_idx):
        global COUNT
        COUNT += 1
        loss = self.net(batch).square().mean() * (COUNT if KIND.startswith("counter") else 1)
        self.log("loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.net(batch).square().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters())


if __name__ == "__main__":
    if not KIND.startswith("no seed"):
        pl.seed_everything(1)
    workers = 1 if KIND == "worker generator" else 0
    open("written", "w").close()
    data = Data()
    trainer = pl.Trainer(max_epochs=50, accelerator="cpu", enable_progress_bar=False)
    trainer.fit(Net(), DataLoader(data, 4, shuffle=True, num_workers=workers), DataLoader(Data(), 8))
    assert trainer.global_step == 18, trainer.global_step
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(textwrap.dedent(SCRIPT))
    return [sys.executable, "train.py"]


@pytest.mark.sampled(every=6)
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "verdict", "named"),
    [
        ("exact", Verdict.EXACT, ""),
        ("counter", Verdict.INEXACT, "COUNT"),
        ("counter of the epoch", Verdict.EPOCHS, "COUNT"),
        ("worker generator", Verdict.EPOCHS, ""),
        ("no seed, with callbacks", Verdict.EXACT, ""),  # each start draws what the first one drew
        ("no seed", Verdict.UNDETERMINED, "train_dataloader[0].dataset.x"),
    ],
)
def test_verdict(script, tmp_path, kind, verdict, named):
    result = Check([*script, kind]).run()
    assert result.verdict is verdict
    assert (result.fits, result.epochs, result.batches) == (1, 3, 6)
    changed = [] if result.difference is None else [path for path, _, _ in result.difference.attributes]
    assert bool(named) is any(named in path for path in changed)
    assert (verdict is Verdict.EXACT) is not bool(result.reason)
    assert {path.name for path in tmp_path.iterdir()} == {"train.py"}  # the script wrote into a copy


TRACED = """
import json, os, sys
from pathlib import Path

kind, job = sys.argv[1], Path(os.environ["LIGHTNING_GREEN_CHECK"])
stops = json.loads((job / "job.json").read_text())["stops"]
done, where = job / "done", Path("position")
reached = int(done.read_text()) if done.exists() else 0
runs = job.parent / "runs"
if reached == 0:
    runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
number = len(runs.read_text())
epochs, batches = (1, 1) if kind == "one batch" else (3, 4)
position = tuple(json.loads(where.read_text())) if where.exists() else (0, 0)


FIT = 0


def write(kind, **record):
    with open(job / "trace.jsonl", "a") as file:
        for run in (0, 1) if kind == "attached" and sys.argv[1] == "exact, and another training" else (0,):
            file.write(json.dumps({"kind": kind, "run": run, "fit": FIT, **record}) + "\\n")


write("attached", loggers=[], changes=[], files=[str(Path("train.py").absolute())])
if reached and kind == "crash":
    sys.exit("KeyError: 'missing in the state.'")
why = "a generator in workers" if kind.startswith("workers") else None
restored = f"step {position[0] * batches + position[1]}" if reached and kind != "scratch" else None
if kind == "unsaved first fit":
    write("started", restored=None, why_not_saved=None, can_save=False, why_epochs_only=None, epochs=epochs,
          batches=batches, seeded=True)
FIT = int(kind == "unsaved first fit")
write("started", restored=restored, why_not_saved=None, can_save=kind != "unsaved", why_epochs_only=why,
      epochs=epochs, batches=batches, seeded=kind != "workers without a seed")
if kind == "scratch":
    position = (0, 0)
for epoch in range(position[0], epochs):
    for batch in range(position[1] if epoch == position[0] else 0, batches):
        if kind == "counter of one epoch" and epoch:
            sys.exit()
        if reached < len(stops) and (epoch, batch) == (stops[reached]["epoch"], stops[reached]["batch"]):
            done.write_text(str(reached + 1))
            where.write_text(json.dumps([epoch, batch]))
            write("stopped", stop=f"stopped at {epoch}, {batch}", step=0)
            sys.exit(75)
        if kind == "shorter" and (epoch, batch) == (2, number):
            sys.exit()
        sample = number if kind.endswith("without a seed") else 0
        wrong = kind.startswith("counter") or (kind == "middle" and reached and stops[reached - 1]["batch"])
        middle = reached and batch and wrong
        metrics = {"time": number + reached} if kind.endswith("with a time") else {}
        random = {"numpy": number + reached if kind == "exact without a seed of numpy" else 0}
        write("point", at=[epoch, batch, "batch"], attributes={"module.n": str(int(bool(middle)))}, samples=sample,
              random=random)
        write("point", at=[epoch, batch, "step"], loss=int(bool(middle)), weights=0, metrics=metrics)
"""


@pytest.mark.parametrize(
    ("kind", "verdict", "reason"),
    [
        ("exact", Verdict.EXACT, ""),
        ("exact, and another training", Verdict.EXACT, ""),
        ("exact with a time", Verdict.EXACT, ""),
        ("exact without a seed of numpy", Verdict.EXACT, ""),
        ("middle", Verdict.EPOCHS, "the output of the step of batch 2 of epoch 0"),
        ("counter", Verdict.INEXACT, "the output of the step of batch 1 of epoch 1"),
        ("counter of one epoch", Verdict.INEXACT, "the output of the step of batch 2 of epoch 0"),
        ("unsaved first fit", Verdict.EXACT, ""),
        ("scratch", Verdict.INEXACT, "was not resumed"),
        ("crash", Verdict.INEXACT, "failed: KeyError: 'missing in the state.'"),
        ("workers", Verdict.EPOCHS, "a generator in workers"),
        ("workers with a time", Verdict.EPOCHS, "a generator in workers"),
        ("workers without a seed", Verdict.UNDETERMINED, "two uninterrupted runs of the script differ: the samples"),
        ("without a seed", Verdict.UNDETERMINED, "two uninterrupted runs of the script differ: the samples"),
        ("shorter", Verdict.UNDETERMINED, "two uninterrupted runs of the script differ"),
        ("one batch", Verdict.UNDETERMINED, "the training is too short to be stopped"),
        ("unsaved", Verdict.NOT_SAVED, "enable_checkpointing=False"),
    ],
)
def test_verdict_on_the_traces_of_processes(tmp_path, monkeypatch, kind, verdict, reason):
    """The script writes the traces that a training with the probe would write, without a training."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRACED)
    result = Check([sys.executable, "train.py", kind]).run()
    assert result.verdict is verdict, result
    assert reason.rstrip(".") in result.reason
    assert result.files["train.py"] == hashlib.sha256(TRACED.encode()).hexdigest()
    assert result.trainings == (2 if "another" in kind else 1)
    ignored = {"with a time": ("metric time",), "seed of numpy": ("random state numpy",)}
    assert result.ignored == next((names for end, names in ignored.items() if kind.endswith(end)), ())


def test_fit_that_starts_from_scratch_after_a_stop_is_a_difference():
    def started(fit, restored):
        return {"kind": "started", "run": 0, "fit": fit, "restored": restored}

    stopped = {"kind": "stopped", "run": 0, "fit": 1, "stop": "stopped after batch 3 of epoch 0, fit 1"}
    trace = [started(0, None), started(1, None), stopped]
    assert _difference([], [*trace, started(1, "step 3")]) is None
    assert _difference([], [*trace, started(1, None)]).what == "not restored"


def test_script_that_is_edited_during_the_check_is_checked_as_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(TRACED)

    def edit(what):
        (tmp_path / "train.py").write_text("raise SystemExit('edited')")

    result = Check([sys.executable, "train.py", "exact"], progress=edit).run()
    assert result.verdict is Verdict.EXACT
    assert result.files["train.py"] == hashlib.sha256(TRACED.encode()).hexdigest()


def test_script_outside_the_directory_that_is_edited_during_the_check_is_not_judged(tmp_path, monkeypatch):
    script = tmp_path / "train.py"
    script.write_text(TRACED)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def edit(what):
        if what.startswith("interrupted"):
            script.write_text(f"{TRACED}# edited")

    with pytest.raises(CheckFailedError, match="changed during the check"):
        Check([sys.executable, str(script), "exact"], progress=edit).run()


def test_copies_are_deleted_after_their_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    (tmp_path / "train.py").write_text(TRACED)
    found = []

    def count_copies(what):
        found.append((what, len(list((tmp_path / "temporary").glob("*/*/tree")))))

    Check([sys.executable, "train.py", "middle"], progress=count_copies).run()
    assert {what.partition(",")[0] for what, _ in found} == {
        "uninterrupted",
        "interrupted",
        "interrupted between epochs",
    }
    assert {copies for _, copies in found} == {1}


def test_kept_directory_has_the_output(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckFailedError):
        Check([sys.executable, "-c", "print('seen')"], keep=Path("kept")).run()
    assert (tmp_path / "kept" / "straight" / "output.log").read_text() == "seen\n"
    with pytest.raises(CheckFailedError, match="is not empty"):
        Check([sys.executable, "-c", "print('seen')"], keep=Path("kept")).run()
