"""Hyperparameters and states of users: the run resumes exactly, or reports at the start which part cannot be saved."""

import argparse
import copy
import dataclasses
import datetime
import enum
import functools
import pathlib
import pickle
import re
import sys

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from lightning_green import CarbonScheduler, EmissionsTracker, ExactResume
from lightning_green.run import coordinator as current
from lightning_green.run.coordinator import close_current_run
from lightning_green.run.run import OtherTrainingError
from tests.callbacks.green_kit import BATCHES, Net, clock, digest, events, train
from tests.helpers.interrupted_fits import Interrupt
from tests.helpers.ledgers import read_records
from tests.helpers.user_scripts import restored, results, script, steps_continued, straight, supervised


class Color(enum.Enum):
    RED = 1


@dataclasses.dataclass
class Config:
    width: int = 3


class Tokenizer:
    pass


HYPERPARAMETERS = {
    "function": lambda: nn.functional.cross_entropy,
    "lambda": lambda: lambda x: x,
    "object": Tokenizer,
    "path": lambda: pathlib.Path("data"),
    "namespace": lambda: argparse.Namespace(lr=1, b=2),
    "enum": lambda: Color.RED,
    "NumPy scalar": lambda: np.float64(0.1),
    "NumPy array": lambda: np.arange(3),
    "loss module": nn.CrossEntropyLoss,
    "set": lambda: {"alpha", "beta", "gamma"},
    "dataclass": Config,
    "partial": lambda: functools.partial(torch.optim.Adam, lr=1e-3),
    "class": lambda: torch.optim.Adam,
    "tensor": lambda: torch.arange(4.0),
    "time": datetime.datetime.now,
    "pattern": lambda: re.compile("a+"),
    "callbacks": lambda: [EmissionsTracker(meter=100.0)],
    "nested": lambda: {"a": {"b": [1, np.float32(2)]}},
}


class WithHyperparameters(Net):
    def __init__(self, value):
        super().__init__()
        self.save_hyperparameters()


@pytest.fixture
def resumes(tmp_path, monkeypatch):
    """Return a function that interrupts a training, continues it, and compares it with one that was not."""
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", clock().spec())
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")

    def run(make, *callbacks):
        def attempt(folder, *more):
            monkeypatch.setattr("tests.callbacks.green_kit.Net", make)
            trainer, weights = train(folder, ExactResume(), *[copy.deepcopy(one) for one in callbacks], *more)
            close_current_run()
            return trainer, weights

        with pytest.raises((KeyboardInterrupt, SystemExit)):
            attempt(tmp_path / "parts", Interrupt(5))
        close_current_run()
        trainer, weights = attempt(tmp_path / "parts")
        assert trainer.global_step == BATCHES
        assert events(tmp_path / "parts", "started")[-1]["restored"] == "step 6"
        assert weights == attempt(tmp_path / "whole")[1]
        return trainer

    return run


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_hyperparameters_of_any_type_do_not_prevent_a_resume(resumes, name):
    resumes(lambda: WithHyperparameters(HYPERPARAMETERS[name]()))


def test_hyperparameters_of_the_script_are_used_with_a_loaded_checkpoint(resumes):
    seen = []

    class Reads(WithHyperparameters):
        def on_load_checkpoint(self, checkpoint):
            seen.append(checkpoint["hyper_parameters"])

    resumes(lambda: Reads(pathlib.Path("data")))
    assert seen == [{"value": pathlib.Path("data")}]


STATES = {
    "path": pathlib.Path("x"),
    "time": datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc),
    "NumPy scalar": np.float64(1.5),
    "NumPy array": np.arange(3),
    "set": {1, 2},
    "enum": Color.RED,
    "dataclass": Config(7),
}


class Keeps(pl.Callback):
    def __init__(self, value):
        self.value, self.loaded = value, None

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        self.loaded = state["value"]


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("name", STATES)
def test_ordinary_data_in_the_state_of_a_callback_is_restored_equal(resumes, name):
    trainer = resumes(Net, Keeps(STATES[name]))
    (keeps,) = [callback for callback in trainer.callbacks if isinstance(callback, Keeps)]
    assert type(keeps.loaded) is type(STATES[name])
    assert np.all(keeps.loaded == STATES[name])


def test_state_that_cannot_be_saved_is_reported_at_the_start_and_the_run_is_metered(tmp_path, caplog):
    tracker = EmissionsTracker(meter=300.0, clock=clock(), grid=100.0)
    scheduler = CarbonScheduler(deadline="36h", on_pause="exit", checkpoint_every="1h")
    with caplog.at_level("INFO"):
        trainer, _ = train(tmp_path, tracker, scheduler, Keeps(re.compile("a+")))
    assert trainer.global_step == BATCHES
    assert tracker.summary()["energy/kwh"] == pytest.approx(1.2)
    assert events(tmp_path, "checkpoint") == events(tmp_path, "paused") == []
    (line,) = [line for line in caplog.text.splitlines() if "neither paused nor saved" in line]
    assert "callbacks['Keeps']['value'] is a `re.Pattern`, which cannot be saved" in line


def test_later_state_that_cannot_be_saved_is_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", clock().spec())

    class Grows(Keeps):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.value = re.compile("a+") if trainer.global_step == 8 else self.value

    train(tmp_path, ExactResume(every="1h"), Grows(1))
    assert [record["global_step"] for record in events(tmp_path, "checkpoint")] == [6]
    assert len(events(tmp_path, "checkpoint_failed")) >= 1
    assert re.search(
        r"The training state could not be saved: callbacks\['.*Grows'\]\['value'\] is a `re\.Pattern`", caplog.text
    )


def test_copy_of_the_tracker_shares_its_totals(tmp_path):
    """Frameworks deep-copy the callbacks that they are given, and train with the copies."""
    mine = EmissionsTracker(meter=300.0, clock=clock())
    theirs = copy.deepcopy(mine)
    train(tmp_path, theirs)
    assert mine.summary()["energy/kwh"] == theirs.summary()["energy/kwh"] == pytest.approx(1.2)
    again = pickle.loads(pickle.dumps(mine))
    with pytest.raises(RuntimeError, match=r"should be called after `trainer\.fit` has started"):
        again.summary()


def test_each_trainer_has_its_own_settings(tmp_path):
    class Fails(pl.Callback):
        def on_fit_start(self, trainer, pl_module):
            raise RuntimeError("the user's own code")

    totals = []
    for watts, grid, more in ((300.0, 100.0, []), (500.0, 900.0, [Fails()]), (100.0, 200.0, []), (100.0, 200.0, [])):
        tracker = EmissionsTracker(meter=watts, grid=grid, pue=1.5, clock=clock())
        try:
            train(tmp_path, tracker, *more)
        except RuntimeError:
            continue
        summary = tracker.summary()
        totals.append((summary["energy/kwh"], summary["carbon/gco2e"], summary["carbon/elapsed_hours"]))
    kwh = [1.2, 0.4, 0.4]
    grams = [1.5 * 1.2 * 100, 1.5 * 0.4 * 200, 1.5 * 0.4 * 200]
    assert [one for one, _, _ in totals] == pytest.approx(kwh)
    assert [one for _, one, _ in totals] == pytest.approx(grams)
    assert [one for _, _, one in totals] == pytest.approx([4.0] * 3)


def test_failure_at_the_start_does_not_affect_the_next_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", clock().spec())
    with pytest.raises(ValueError, match="different `meter`"):
        train(tmp_path, EmissionsTracker(meter=100.0), CarbonScheduler(meter=200.0))
    tracker = EmissionsTracker(meter=300.0)
    train(tmp_path, tracker)
    assert tracker.summary()["energy/kwh"] == pytest.approx(1.2)


def test_metering_uses_another_directory_if_its_own_is_in_use(tmp_path, monkeypatch):
    from lightning_green.ledger.run_directory import RunDirectory

    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path / "run"))
    other = RunDirectory(tmp_path / "run")
    other.lock("run")
    tracker = EmissionsTracker(meter=300.0, clock=clock())
    train(tmp_path, tracker)
    assert tracker.session.path.parent == tmp_path / "run" / "runs"
    assert tracker.summary()["energy/kwh"] == pytest.approx(1.2)
    other.unlock()


def test_finished_fit_is_restored_only_with_its_data(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", clock().spec())
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")

    def train_and_die(*callbacks, **options):
        try:
            return train(tmp_path, ExactResume(), *callbacks, **options)
        finally:
            for run in current._runs.values():
                run.end(cleanly=False)
            current._runs.clear()

    _, weights = train_and_die()
    _, restored = train_and_die()
    assert restored == weights
    assert len(events(tmp_path, "started")) == 1
    monkeypatch.setattr("tests.callbacks.green_kit.DataLoader", lambda data, size, **more: loader(data, 6, **more))
    with pytest.raises(OtherTrainingError, match=r"batch_sizes: \[4\] then, \[6\] now"):
        train_and_die()


def loader(data, size, **more):
    return torch.utils.data.DataLoader(data, size, **more)


ALL = """
import argparse, datetime, enum, pathlib

class Mode(enum.Enum):
    FAST = 1

class Everything(Net):
    def __init__(self, where, when, mode, options, scale, loss, words):
        super().__init__()
        self.save_hyperparameters()

class Remembers(pl.Callback):
    def state_dict(self):
        return {"where": pathlib.Path("x"), "mode": Mode.FAST, "when": datetime.datetime(2024, 1, 1)}
    def load_state_dict(self, state):
        assert state == self.state_dict(), state

import numpy as np
pl.seed_everything(0, verbose=False)
values = pathlib.Path("data"), datetime.datetime.now(), Mode.FAST, argparse.Namespace(a=1), np.float64(0.5)
module = Everything(*values, nn.MSELoss(), {"some", "words"})
one = trainer(Remembers(), *CALLBACKS)
one.fit(module, loader(), loader(8, 1))
report("only", one, module)
"""


@pytest.mark.slow
def test_state_of_every_kind_survives_a_kill(tmp_path):
    alone, _ = straight(tmp_path / "alone", script(tmp_path / "alone", ALL))
    path = script(tmp_path / "parts", ALL)
    code, output = supervised(tmp_path / "parts", sys.executable, path, FAULT="kill@only:7")
    assert code == 0, output
    seen, trained = results(tmp_path / "parts")
    assert seen == alone
    assert steps_continued(tmp_path / "parts" / "run") == [6]
    assert sum(trained["only"]) < 12
    assert restored(tmp_path / "parts" / "run")[0] is None


def test_changed_model_is_refused_and_a_state_belongs_to_one_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CLOCK", clock().spec())
    monkeypatch.setenv("LIGHTNING_GREEN_RESUME", "1")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, ExactResume(), Interrupt(5))
    close_current_run()
    monkeypatch.setattr("tests.callbacks.green_kit.Net", lambda: WithHyperparameters(2))
    with pytest.raises(OtherTrainingError, match=r"hparams\.value: absent then, 2 now"):
        train(tmp_path, ExactResume())
    close_current_run()
    monkeypatch.setattr("tests.callbacks.green_kit.Net", Net)
    trainer, weights = train(tmp_path, ExactResume())
    assert events(tmp_path, "started")[-1]["restored"] == "step 6"
    assert digest(trainer.lightning_module) == weights
    assert read_records(trainer._lightning_green_fit.session.path)
