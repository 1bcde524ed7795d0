"""Saving and restoring one fit directly; ``test_every_batch.py`` tests whole runs."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import LambdaCallback

from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.plain_data import from_plain
from lightning_green.resume.training_state import ExactState
from tests.helpers.trainers import RecordingModel, batches, quiet_trainer


class Stop(Exception):
    pass


class Exact(pl.Callback):
    """Saves the state after ``stop_after`` batches and stops, or continues from ``saved``, ``points`` included."""

    def __init__(self, stop_after=None, saved=None):
        self.stop_after, self.saved, self.points = stop_after, saved, []

    def setup(self, trainer, pl_module, stage):
        self.exact = ExactState(trainer, self, self.boundary, lambda: self.points.append("end"))
        load = (lambda given: None) if self.saved is None else (lambda given: ("saved.ckpt", self.saved))
        self.exact.attach(load, resuming=self.saved is not None)

    def on_train_start(self, trainer, pl_module):
        self.exact.activate()

    def boundary(self, point):
        self.points.append(point)
        if self.points.count("batch") == self.stop_after:
            assert self.exact.why_not_saved(point) is None
            self.saved = self.exact.dump(point)
            raise Stop

    def teardown(self, trainer, pl_module, stage):
        self.exact.detach()


def fit(folder, loader=None, **options):
    pl.seed_everything(1, verbose=False)
    exact, model, trained = Exact(**options), RecordingModel(), []
    count = LambdaCallback(on_train_batch_start=lambda *args: trained.append(1))
    trainer = quiet_trainer(folder, exact, count, max_epochs=2)
    try:
        trainer.fit(model, batches(shuffle=True) if loader is None else loader)
    except Stop:
        exact.exact.detach()
    exact.trained = len(trained)
    return exact, model


@pytest.mark.parametrize("stop_after", [1, 4, 7])
def test_fit_continues_from_a_saved_state_exactly(stop_after, tmp_path):
    whole, expected = fit(tmp_path)
    assert whole.points == ["epoch", *["batch"] * 5, "epoch", *["batch"] * 5, "end"]
    stopped, first = fit(tmp_path, stop_after=stop_after)
    torch.save(stopped.saved, tmp_path / "state")
    saved = from_plain(torch.load(tmp_path / "state", weights_only=True))
    continued, second = fit(tmp_path, saved=saved)
    assert first.seen == expected.seen[: stopped.trained]
    assert stopped.trained + continued.trained == whole.trained
    assert (continued.points, second.seen) == (whole.points, expected.seen)
    weights = expected.state_dict()
    assert all(torch.equal(one, weights[name]) for name, one in second.state_dict().items())


class FailingSetup(pl.Callback):
    """Comes after ``Exact``."""

    def setup(self, trainer, pl_module, stage):
        raise OSError("no space left")


def test_a_fit_whose_setup_fails_leaves_no_replaced_method(tmp_path):
    exact = Exact(saved={})
    trainer = quiet_trainer(tmp_path, exact, FailingSetup())
    owners = [trainer, trainer._checkpoint_connector, trainer.fit_loop, trainer.fit_loop.epoch_loop]
    before = [set(vars(owner)) for owner in owners]
    with pytest.raises(OSError, match="no space left"):
        trainer.fit(RecordingModel(), batches())
    exact.exact.detach()
    assert [set(vars(owner)) - old for owner, old in zip(owners, before, strict=True)] == [set()] * 4
    trainer.callbacks.clear()
    trainer.fit(model := RecordingModel(), batches())
    assert len(model.seen) == 6


def test_changed_number_of_training_loaders_is_refused(tmp_path):
    stopped, _ = fit(tmp_path, stop_after=2)
    with pytest.raises(InexactStateError, match=r"1 training loader\(s\) and there are 2 now"):
        fit(tmp_path, loader=[batches(), batches()], saved=from_plain(stopped.saved))


class Finishing(Exact):
    """Saves the state at the end, or restores it as that of a finished fit."""

    def setup(self, trainer, pl_module, stage):
        self.exact = ExactState(trainer, self, self.boundary, self.save)
        finished = (lambda given: ("saved.ckpt", self.saved)), True, None, lambda: None
        self.exact.attach(*(finished if self.saved else (lambda given: None, False)))

    def save(self):
        self.saved = self.exact.dump("epoch")

    def on_fit_end(self, trainer, pl_module):
        self.exact.restore_finished()


class Counting(RecordingModel):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()), persistent=False)

    def training_step(self, batch, batch_idx):
        self.count += 1
        return super().training_step(batch, batch_idx)


def test_buffers_outside_the_state_dict_of_a_finished_fit_are_restored(tmp_path):
    first = Finishing()
    quiet_trainer(tmp_path, first).fit(Counting(), batches())
    again = Finishing(saved=from_plain(first.saved))
    quiet_trainer(tmp_path, again).fit(model := Counting(), batches())
    assert model.count == 6
