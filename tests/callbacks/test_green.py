"""What the callbacks that share a run have in common."""

import copy
import logging
import pickle
import threading

import lightning.pytorch as pl
import pytest
from lightning.pytorch import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume, KnowledgeDistillation, Pruning
from lightning_green.callbacks._green import GreenCallback
from lightning_green.run.options import RunOptions
from tests.callbacks.green_kit import BATCHES, WATTS, Net, clock, events, torch, tracker, train
from tests.helpers.trainers import batches, quiet_trainer


class StepCounter(GreenCallback):
    """The example of the base class."""

    def __init__(self):
        super().__init__(RunOptions(meter=WATTS, clock=clock()))

    def on_train_end(self, trainer, pl_module):
        super().on_train_end(trainer, pl_module)
        self.seen = (trainer.global_step, self.session.summary()["energy/kwh"])


def test_subclass_joins_the_run_with_its_options(tmp_path):
    counter = StepCounter()
    assert counter.session is None
    train(tmp_path, counter)
    assert counter.seen == (BATCHES, pytest.approx(1.2))
    assert [record["event"] for record in events(tmp_path)][:1] == ["started"]


def test_phases_are_on_record(tmp_path):
    train(tmp_path, tracker(), validate=True)
    assert [record["phase"] for record in events(tmp_path, "phase")] == ["validation", "training"] * 2


@pytest.mark.parametrize("first", [True, False])
def test_the_order_of_the_callbacks_does_not_matter(tmp_path, first):
    watch, other = tracker(), CarbonScheduler()
    train(tmp_path, *((watch, other) if first else (other, watch)))
    assert watch.summary()["carbon/gco2e"] == pytest.approx(120.0)
    assert len(events(tmp_path, "started")) == len(events(tmp_path, "finished")) == 1


def test_two_callbacks_that_contradict_each_other(tmp_path):
    with pytest.raises(ValueError, match=r"different `grid`: 100\.0 and 200\.0"):
        train(tmp_path, tracker(), CarbonScheduler(grid=200.0))


def test_a_fast_development_run_leaves_nothing_behind_and_is_reported_once(tmp_path, caplog):
    caplog.set_level("INFO")
    watch = tracker()
    train(tmp_path, watch, ExactResume(), fast_dev_run=True)
    assert not list(tmp_path.rglob("ledger.*"))
    assert caplog.text.count("a `fast_dev_run` is neither measured nor recorded nor paused") == 1
    summary = watch.summary()
    assert (summary["energy/kwh"], summary["carbon/gco2e"], summary["carbon/exits"]) == (None, None, 0)


@pytest.mark.parametrize("method", ["validate", "test"])
def test_validation_and_test_alone_are_not_recorded_and_report_nothing(tmp_path, caplog, method):
    caplog.set_level("INFO")
    trainer = quiet_trainer(tmp_path, tracker(), CarbonScheduler(grid=100.0), limit_val_batches=1.0)
    getattr(trainer, method)(BoringModel(), batches(), verbose=False)
    assert "Lightning Green" not in caplog.text
    assert not list(tmp_path.rglob("ledger.*"))


class Stream:
    """An iterable without indices."""

    def __iter__(self):
        return iter([[torch.randn(4, 4)] for _ in range(6)])


class LookAtTrainer(pl.Callback):
    """Looks at the Trainer and copies it in a batch."""

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 1:
            self.seen = trainer.train_dataloader, trainer.val_dataloaders
            self.copies = copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))


@pytest.mark.parametrize("kind", ["map", "stream"])
def test_trainer_has_the_loaders_of_the_script_and_can_be_copied_and_pickled(tmp_path, kind):
    data = TensorDataset(torch.randn(48, 4))
    training = DataLoader(data, 4) if kind == "map" else Stream()
    validation, look = DataLoader(data, 24), LookAtTrainer()
    settings = {"accelerator": "cpu", "logger": False, "default_root_dir": tmp_path, "enable_progress_bar": False}
    trainer = pl.Trainer(max_epochs=1, callbacks=[look, tracker(), CarbonScheduler(), ExactResume()], **settings)
    trainer.fit(Net(), training, validation)
    assert look.seen == (training, validation)
    assert (trainer.train_dataloader, trainer.val_dataloaders) == (training, validation)
    for copied in (*look.copies, copy.deepcopy(trainer), pickle.loads(pickle.dumps(trainer))):
        copied.fit_loop.max_epochs = copied.current_epoch + 1
        copied.fit(Net(), training, validation)  # as a Trainer of its own
        assert copied.current_epoch == copied.max_epochs
    assert trainer.current_epoch == 1


def test_combined_loader_of_the_script_is_unchanged_after_a_fit(tmp_path):
    loaders = {"a": DataLoader(TensorDataset(torch.randn(8, 4)), 4), "b": DataLoader(TensorDataset(torch.randn(8, 4)))}
    combined = CombinedLoader(loaders, "min_size")

    class Both(Net):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch["a"], batch_idx)

    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, default_root_dir=tmp_path,
                         enable_progress_bar=False, callbacks=[ExactResume()])  # fmt: skip
    trainer.fit(Both(), combined)
    assert combined.iterables == loaders
    assert combined.flattened == list(loaders.values())


def test_no_thread_outlives_a_fit(tmp_path):
    before = set(threading.enumerate())
    train(tmp_path, EmissionsTracker(grid=100.0), CarbonScheduler(deadline="1h"), ExactResume())
    assert set(threading.enumerate()) <= before


def test_run_directory_of_a_remote_root_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("memory://bucket/runs", tracker(), ExactResume())
    assert [path.name for path in tmp_path.iterdir()] == ["lightning_green"]
    assert events(tmp_path, "finished")


def test_copy_of_a_callback_has_the_session_of_the_fit(tmp_path):
    """Frameworks copy callbacks before they train with the copies."""
    watch = tracker()
    trained = copy.deepcopy(watch)
    train(tmp_path, trained)
    assert watch.session is trained.session
    assert watch.summary()["energy/kwh"] == pytest.approx(1.2)


def test_copy_for_another_process_has_no_session(tmp_path):
    watch = tracker()
    train(tmp_path, watch)
    assert pickle.loads(pickle.dumps(watch)).session is None


def test_validation_without_a_fit_starts_no_run(tmp_path):
    trainer = pl.Trainer(
        accelerator="cpu", callbacks=[tracker()], logger=False, default_root_dir=tmp_path, enable_progress_bar=False
    )
    trainer.validate(Net(), DataLoader(TensorDataset(torch.zeros(4, 4))), verbose=False)
    assert not list(tmp_path.rglob("ledger.*"))


def test_state_is_saved_if_one_callback_asks_for_it(tmp_path):
    train(tmp_path / "metered", tracker())
    assert not list(tmp_path.rglob("fit0-final.ckpt"))
    train(tmp_path / "saved", tracker(), ExactResume())
    assert list(tmp_path.rglob("fit0-final.ckpt"))


def test_start_up_block_is_printed_once_with_the_lines_of_every_callback(tmp_path, caplog):
    class Line(GreenCallback):
        def startup_lines(self, trainer):
            return {"Line": "of a subclass"}

    caplog.set_level(logging.INFO)
    train(tmp_path, tracker(), Line(RunOptions()))
    (block,) = [text for text in caplog.messages if text.startswith("Lightning Green\n")][:1]
    assert [line.split()[0] for line in block.splitlines()[1:]] == ["Meter", "Grid", "Folder", "Line"]
    assert sum("of a subclass" in text for text in caplog.messages) == 1


def test_settings_of_compression_callbacks_are_recorded(tmp_path):
    pruning, other = Pruning(0.3), Pruning({"layer": 0.5}, granularity="2:4", begin=0.2)
    distillation = KnowledgeDistillation(torch.nn.Linear(4, 1), losses={"soft_targets": 1.0})
    found = {}

    class Look(Callback):
        def on_train_start(self, trainer, pl_module):
            one = next(one for one in trainer.callbacks if isinstance(one, GreenCallback))
            found.update(one._all_settings(trainer))

    train(tmp_path, tracker(), pruning, distillation, Look())
    assert found["Pruning"]["target"] == 0.3
    assert found["KnowledgeDistillation"]["teacher"] == "Linear"
    assert found["KnowledgeDistillation"]["losses"] == {"soft_targets": 1.0}
    assert other.settings()["target"] == {"layer": 0.5}
    assert not {"self", "__class__"} & set(other.settings())
    pickle.dumps(distillation.settings())
