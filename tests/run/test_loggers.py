"""Real loggers over two parts of a training: one run in each logger, with all rows and exact floats."""

import csv
import time
from pathlib import Path

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

from lightning_green.run import loggers
from lightning_green.run.loggers import continue_loggers, log_to_all
from tests.examples.helpers import wandb_records

EXACT = 123456.789012345  # 123456.7890625 as float32


def trainer_with(*made):
    return pl.Trainer(accelerator="cpu", logger=list(made), enable_checkpointing=False)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_csv_appends_to_the_same_file(tmp_path):
    first = trainer_with(CSVLogger(tmp_path))
    saved = continue_loggers(first, {}, 0)
    log_to_all(first, {"energy/kwh": EXACT, "val/loss": 0.5}, 1)
    loggers.flush(first)

    CSVLogger(tmp_path).experiment.save()  # another run uses the next version
    second = trainer_with(CSVLogger(tmp_path))
    assert continue_loggers(second, saved, 0) == saved
    assert second.logger.log_dir == first.logger.log_dir
    log_to_all(second, {"energy/kwh": 2.0}, 2)
    loggers.flush(second)
    log_to_all(second, {"energy/kwh": 3.0, "carbon/gco2e": 4.0}, 3)  # a new column of the second part
    loggers.flush(second)

    written = rows(Path(first.logger.log_dir) / "metrics.csv")
    assert [(row["step"], row["energy/kwh"]) for row in written] == [("1", str(EXACT)), ("2", "2.0"), ("3", "3.0")]
    assert [row["carbon/gco2e"] for row in written] == ["", "", "4.0"]
    assert [row["val/loss"] for row in written] == ["0.5", "", ""]  # a column of the first part only


def test_csv_continues_without_rows(tmp_path):
    saved = continue_loggers(trainer_with(CSVLogger(tmp_path)), {}, 0)
    second = trainer_with(CSVLogger(tmp_path))
    continue_loggers(second, saved, 0)
    log_to_all(second, {"a": 1.0}, 1)
    loggers.flush(second)
    assert [row["a"] for row in rows(Path(second.logger.log_dir) / "metrics.csv")] == ["1.0"]


def test_version_set_by_the_user_is_kept(tmp_path):
    saved = continue_loggers(trainer_with(CSVLogger(tmp_path, version="mine")), {}, 0)
    assert list(saved.values()) == ["mine"]
    other = trainer_with(CSVLogger(tmp_path, version="another"))
    continue_loggers(other, saved, 0)
    assert other.logger.version == "another"


def test_tensorboard_continues_in_the_same_directory(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    saved = {}
    for step in (1, 2):
        trainer = trainer_with(TensorBoardLogger(tmp_path))
        saved = continue_loggers(trainer, saved, 0)
        log_to_all(trainer, {"energy/kwh": float(step)}, step)
        loggers.flush(trainer)
    (folder,) = (tmp_path / "lightning_logs").iterdir()
    read = EventAccumulator(str(folder)).Reload()
    assert [(event.step, event.value) for event in read.Scalars("energy/kwh")] == [(1, 1.0), (2, 2.0)]


def test_each_logger_of_each_fit_has_its_own_identity(tmp_path):
    def two():
        return trainer_with(CSVLogger(tmp_path, version=1), CSVLogger(tmp_path, version=2), WandbLogger(offline=True))

    saved = continue_loggers(two(), {}, 0)
    assert saved["0.0.CSVLogger"] == 1
    assert saved["0.1.CSVLogger"] == 2
    both = continue_loggers(two(), saved, 1)
    assert both["0.2.WandbLogger"] == saved["0.2.WandbLogger"]
    assert both["1.2.WandbLogger"] != saved["0.2.WandbLogger"]


def wandb_id(saved=None, **options):
    trainer = trainer_with(WandbLogger(offline=True, **options))
    identities = continue_loggers(trainer, {} if saved is None else {"0.0.WandbLogger": saved}, 0)
    assert trainer.logger.version == trainer.logger._wandb_init["id"] == identities["0.0.WandbLogger"]
    return identities["0.0.WandbLogger"]


def test_wandb_id_comes_from_user_environment_or_saved_state(monkeypatch):
    fresh = wandb_id()
    assert len(fresh) == 8
    assert wandb_id() != fresh
    assert wandb_id(saved=fresh) == fresh
    monkeypatch.setenv("WANDB_RUN_ID", "theirs")
    assert wandb_id(saved=fresh) == "theirs"
    assert wandb_id(saved=fresh, id="mine") == "mine"


def whole(file):
    """Return the records of a W&B file after its process has written the last one."""
    limit = time.monotonic() + 60
    while not of_kind(records := wandb_records(file.read_bytes()), "exit"):
        assert time.monotonic() < limit, "W&B has not written the end of its file"
        time.sleep(0.05)
    return records


@pytest.fixture(scope="module")
def wandb_parts(tmp_path_factory):
    """Return the id and the records of an offline W&B run in two parts, and the directories that we recorded."""
    folder = tmp_path_factory.mktemp("wandb")
    saved, parts, named = {}, [], []
    for part in (1, 2):
        trainer = trainer_with(WandbLogger(project="tests", offline=True, save_dir=folder))
        saved = continue_loggers(trainer, saved, 0)
        time.sleep(1.05 - time.time() % 1.0)  # the directory name of W&B contains the second
        loggers.define_axes(trainer)
        log_to_all(trainer, {"energy/kwh": EXACT, "carbon/elapsed_hours": float(part)}, part)
        loggers.summarize(trainer, {"energy/kwh": EXACT, "carbon/gco2e": None, "energy/quality": {"cpu": "measured"}})
        loggers.flush(trainer)
        named += loggers.wandb_folders(trainer)
        loggers.mark_preempting(trainer)
        loggers.finish_experiments(trainer, 75)
        (file,) = set(folder.glob("wandb/offline-run-*/*.wandb")) - {path for path, _ in parts}
        parts.append((file, whole(file)))
    return saved["0.0.WandbLogger"], parts, named


def of_kind(records, kind):
    return [getattr(record, kind) for record in records if record.WhichOneof("record_type") == kind]


def test_wandb_parts_share_one_id_and_one_axis(wandb_parts):
    run_id, parts, named = wandb_parts
    assert named == [str(path.parent) for path, _ in parts]
    for _, records in parts:
        assert {run.run_id for run in of_kind(records, "run")} == {run_id}
        axes = {metric.glob_name or metric.name: metric.step_metric for metric in of_kind(records, "metric")}
        assert axes["carbon/*"] == axes["energy/*"] == "carbon/elapsed_hours"


def test_wandb_history_has_exact_floats_and_summary_has_numbers_only(wandb_parts):
    for _, records in wandb_parts[1]:
        history = {
            item.key or "/".join(item.nested_key): item.value_json
            for row in of_kind(records, "history")
            for item in row.item
        }
        assert float(history["energy/kwh"]) == EXACT
        summary = {
            item.key or "/".join(item.nested_key): item.value_json
            for row in of_kind(records, "summary")
            for item in row.update
        }
        assert float(summary["energy/kwh"]) == EXACT
        assert "carbon/gco2e" not in summary  # unknown is not 0
        assert "energy/quality" not in summary


def test_finished_wandb_part_is_marked_as_preempted(wandb_parts):
    for _, records in wandb_parts[1]:
        assert len(of_kind(records, "preempting")) == 1
        assert [end.exit_code for end in of_kind(records, "exit")] == [75]


def test_wandb_run_created_before_fit_logs_a_warning(tmp_path, caplog):
    trainer = trainer_with(WandbLogger(project="tests", offline=True, save_dir=tmp_path, id="made-early"))
    trainer.logger.experiment  # noqa: B018 - creates the run
    try:
        assert continue_loggers(trainer, {"0.0.WandbLogger": "before"}, 0) == {"0.0.WandbLogger": "made-early"}
        assert "made-early instead of before" in caplog.text
        assert "lightning-green run" in caplog.text
    finally:
        trainer.logger.experiment.finish()


def test_trainer_without_loggers_does_nothing():
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    assert continue_loggers(trainer, {}, 0) == {}
    log_to_all(trainer, {"a": 1.0}, 1)
    loggers.define_axes(trainer)
    assert loggers.wandb_folders(trainer) == []
