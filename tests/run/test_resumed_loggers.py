"""Each logger over a planned exit and a resume: one run, steps in order, no row twice, settings and totals once."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, MLFlowLogger, TensorBoardLogger, WandbLogger

from lightning_green import EmissionsTracker, RunPausedExit
from lightning_green.run.coordinator import close_current_run
from tests.callbacks.green_kit import BATCHES, DIRTY_THEN_CLEAN, scheduler, train
from tests.examples.helpers import wandb_records
from tests.helpers.traces import write_trace


def twice(folder, make):
    """Train with a planned exit and a resume; return both loggers."""
    trace, made = write_trace(folder / "trace.csv", DIRTY_THEN_CLEAN), [make(), None]
    with pytest.raises(RunPausedExit):
        train(folder, EmissionsTracker(), scheduler(trace, on_pause="exit"), logger=made[0])
    close_current_run()
    time.sleep(1.05 - time.time() % 1.0)  # the directory name of W&B contains the second
    made[1] = make()
    train(folder, EmissionsTracker(), scheduler(trace, on_pause="hold"), logger=made[1])
    close_current_run()
    return made


def in_order_and_once(steps):
    return list(steps) == sorted(set(steps))


def test_csv(tmp_path):
    _, logger = twice(tmp_path, lambda: CSVLogger(tmp_path))
    with (Path(logger.log_dir) / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [int(row["step"]) for row in rows if row["loss"]]
    assert losses == list(range(BATCHES))
    assert [int(row["step"]) for row in rows] == sorted(int(row["step"]) for row in rows)
    record = json.loads((Path(logger.log_dir) / "lightning_green.json").read_text())
    assert record["settings"]["CarbonScheduler"]["on_pause"] == "hold"
    assert record["summary"]["carbon/exits"] == 1


def tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_tensorboard(tmp_path):
    _, logger = twice(tmp_path, lambda: TensorBoardLogger(tmp_path))
    read = tensorboard(logger.log_dir)
    assert [event.step for event in read.Scalars("loss")] == list(range(BATCHES))
    assert read.Scalars("carbon/gco2e")
    texts = {tag: read.Tensors(tag) for tag in read.Tags()["tensors"]}
    assert {tag: len(found) for tag, found in texts.items()} == {
        "lightning_green/settings/text_summary": 1,
        "lightning_green/summary/text_summary": 1,
    }
    (summary,) = texts["lightning_green/summary/text_summary"]
    assert b'"carbon/exits": 1' in summary.tensor_proto.string_val[0]


def test_mlflow(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    first, second = twice(tmp_path, lambda: MLFlowLogger(tracking_uri=f"file:{tmp_path / 'mlruns'}"))
    assert first.run_id == second.run_id
    client = second.experiment
    assert [point.step for point in client.get_metric_history(first.run_id, "loss")] == list(range(BATCHES))
    run = client.get_run(first.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["carbon/exits"] == 1.0
    assert run.data.params["lightning_green/CarbonScheduler/on_pause"] == "exit"


def test_mlflow_run_that_is_gone_is_replaced(tmp_path, monkeypatch, caplog):
    pytest.importorskip("mlflow")
    from lightning_green.run.loggers import continue_loggers
    from tests.run.test_loggers import trainer_with

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    logger = MLFlowLogger(tracking_uri=f"file:{tmp_path / 'mlruns'}")
    saved = {"0.0.MLFlowLogger": "0" * 32}
    found = continue_loggers(trainer_with(logger), saved, 0)
    assert found["0.0.MLFlowLogger"] == logger.run_id != "0" * 32
    assert "cannot be continued" in caplog.text


def test_wandb(tmp_path):
    first, second = twice(tmp_path, lambda: WandbLogger(project="tests", offline=True, save_dir=tmp_path))
    second.experiment.finish()
    assert first.version == second.version
    parts = [wandb_records(path.read_bytes()) for path in sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))]
    assert len(parts) == 2
    steps = []
    for records in parts:
        for record in records:
            if record.WhichOneof("record_type") == "history":
                row = {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
                if "loss" in row:
                    steps.append(int(row["trainer/global_step"]))
    assert in_order_and_once(steps)
    config = [
        item.value_json
        for record in parts[1]
        if record.WhichOneof("record_type") == "config"
        for item in record.config.update
        if "lightning_green" in (item.key, *item.nested_key)
    ]
    assert json.loads(config[-1])["CarbonScheduler"]["deadline"] == "20:00:00"
    folders = {path.parent for path in tmp_path.glob("wandb/offline-run-*/*.wandb")}
    (folder,) = {path for path in folders if (path / "files" / "media").exists()}
    tables = {path.name.split("_")[0]: json.loads(path.read_text()) for path in folder.rglob("*.table.json")}
    assert "decisions" in tables
    assert "saves about" in json.dumps(tables["decisions"]["data"])
    assert "timeline" in tables
    assert {"out", "running"} & {row[2] for row in tables["timeline"]["data"]}
    requests = [one.request.log_artifact.artifact for one in parts[1] if one.request.HasField("log_artifact")]
    artifacts = [one.artifact for one in parts[1] if one.WhichOneof("record_type") == "artifact"] + requests
    reports = [one for one in artifacts if one.type == "report"]
    assert [[entry.path for entry in one.manifest.contents] for one in reports] == [["report.html"]]


KILLED = """
import os, signal
import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning_green import EmissionsTracker, ExactResume
from tests.callbacks.green_kit import Net, clock, torch
from torch.utils.data import DataLoader, TensorDataset

class Kill(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == 17 and os.environ["HOW"] == "kill":
            for logger in trainer.loggers:
                logger.save()
            os.kill(os.getpid(), signal.SIGKILL)

pl.seed_everything(1)
trainer = pl.Trainer(
    max_epochs=2, accelerator="cpu", log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False,
    callbacks=[EmissionsTracker(meter=300.0, grid=100.0, clock=clock()), ExactResume(every="50m"), Kill()],
    logger=[CSVLogger("."), TensorBoardLogger(".")], limit_val_batches=0,
)
trainer.fit(Net(), DataLoader(TensorDataset(torch.randn(48, 4)), 4))
"""


@pytest.mark.slow
def test_rows_of_csv_and_tensorboard_after_a_kill(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(KILLED)
    given = {**os.environ, "LIGHTNING_GREEN_RESUME": "1", "LIGHTNING_GREEN_RUN_DIR": str(tmp_path / "run")}
    for how, code in (("kill", -signal.SIGKILL), ("finish", 0)):
        command, environment = [sys.executable, script], {**given, "HOW": how}
        ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stderr
    assert "continued from step 1" in ended.stderr
    assert "continued from step 17" not in ended.stderr
    (folder,) = tmp_path.glob("lightning_logs/version_0")
    with (folder / "metrics.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file) if row["loss"]] == list(range(24))
    assert [event.step for event in tensorboard(folder).Scalars("loss")] == list(range(24))
