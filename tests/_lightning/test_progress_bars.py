"""A field in the progress bars of both packages, on the bars of the user."""

import copy

import lightning.pytorch as pl
import pytest
from lightning.pytorch.callbacks import RichProgressBar, TQDMProgressBar
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_green._lightning.progress_bars import add_progress_field, refresh_progress_bars
from tests.helpers.trainers import batches, quiet_trainer


class OwnBar(TQDMProgressBar):
    def get_metrics(self, trainer, pl_module):
        return {"own": 1, **super().get_metrics(trainer, pl_module)}


class WithField(pl.Callback):
    """Adds the field for the time of a fit and records what the bar and the loggers have."""

    def __init__(self, name="green"):
        self.name, self.seen, self.calls = name, [], 0

    def text(self):
        self.calls += 1
        return "a text"

    def setup(self, trainer, pl_module, stage):
        self.undo = add_progress_field(trainer, self.name, self.text)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(trainer.progress_bar_callback.get_metrics(trainer, pl_module))
        refresh_progress_bars(trainer)

    def teardown(self, trainer, pl_module, stage):
        self.undo()


@pytest.mark.parametrize("bar", [TQDMProgressBar(), RichProgressBar(), OwnBar()])
def test_bar_has_the_field_during_a_fit_only(tmp_path, bar, capfd):
    before, field = dict(bar.__dict__), WithField()
    trainer = quiet_trainer(tmp_path, bar, field, enable_progress_bar=True)
    trainer.fit(BoringModel(), batches())
    assert {seen["green"] for seen in field.seen} == {"a text"}
    assert "a text" in "".join(capfd.readouterr())
    assert "get_metrics" not in bar.__dict__
    assert "get_metrics" not in before
    assert not {"green", "a text"} & set(trainer.callback_metrics)
    assert not trainer.progress_bar_metrics
    assert (field.seen[0].get("own") == 1) == isinstance(bar, OwnBar)


def test_metric_of_the_same_name_is_kept(tmp_path, capfd):
    field = WithField("own")
    quiet_trainer(tmp_path, OwnBar(), field, enable_progress_bar=True).fit(BoringModel(), batches())
    assert {seen["own"] for seen in field.seen} == {1}


def test_text_is_computed_only_when_the_bar_refreshes(tmp_path, capfd):
    class Quiet(WithField):
        on_train_batch_end = pl.Callback.on_train_batch_end

    field = Quiet()
    quiet_trainer(tmp_path, TQDMProgressBar(refresh_rate=5), field, enable_progress_bar=True).fit(
        BoringModel(), batches(24)
    )
    assert field.calls == 4  # after batches 5, 10 and 12, and at the end of the epoch


def test_disabled_bar_and_no_bar_are_not_refreshed(tmp_path):
    class NoBar(WithField):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            refresh_progress_bars(trainer)

    for bars, shown in (([], False), ([TQDMProgressBar(refresh_rate=0)], True)):
        field = NoBar()
        quiet_trainer(tmp_path, *bars, field, enable_progress_bar=shown).fit(BoringModel(), batches())
        assert field.calls == 0


def test_copied_bar_has_its_own_method():
    bar = TQDMProgressBar()
    trainer = pl.Trainer(accelerator="cpu", logger=False, callbacks=[bar], enable_checkpointing=False)
    add_progress_field(trainer, "green", str)
    copied = copy.deepcopy(bar)
    assert copied.get_metrics.__self__ is copied
    assert copied.get_metrics.__func__ is TQDMProgressBar.get_metrics


def test_bar_of_the_other_package(tmp_path, capfd):
    other = pytest.importorskip("pytorch_lightning")
    bar = other.callbacks.TQDMProgressBar()
    trainer = other.Trainer(accelerator="cpu", logger=False, callbacks=[bar], enable_checkpointing=False)
    undo = add_progress_field(trainer, "green", lambda: "a text")
    assert "green" in bar.get_metrics(trainer, None)
    refresh_progress_bars(trainer)
    undo()
    assert "green" not in bar.get_metrics(trainer, None)
