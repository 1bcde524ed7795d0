"""What the callbacks of a Trainer share during one fit."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_green.run.fit import Fit
from lightning_green.run.fit_ending import FitStage
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import read_records
from tests.helpers.trainers import RecordingModel, batches, quiet_trainer


@pytest.fixture
def make(opened, tmp_path):
    """Return a function that creates a fit whose start is not recorded yet."""

    def create(**given):
        session, _ = opened(announce=False, **given)
        trainer = quiet_trainer(tmp_path)
        trainer.strategy.connect(RecordingModel())
        fit = Fit(session, trainer, [])
        fit.members.append(pl.Callback())
        return fit

    return create


def names(folder):
    return [record["event"] for record in read_records(folder / "run")]


def setup(fit, **given):
    fit.setup(**{"wants_exact": True, "saves": True, "allow_inexact": False, **given})


def test_start_is_recorded_by_the_first_callback_only(make, tmp_path):
    fit = make()
    assert [fit.begin() for _ in range(3)] == [True, False, False]
    assert names(tmp_path) == ["started"]
    assert fit.ending.stage is FitStage.TRAINING


def test_setup_by_several_callbacks_acts_once(make):
    fit = make()
    setup(fit)
    state = fit.state
    setup(fit)
    assert fit.state is state
    assert fit.can_save
    assert fit.boundaries.follower is None
    fit.ending.close()


def test_fit_without_a_callback_that_saves_is_only_metered(make):
    fit = make()
    setup(fit, wants_exact=False)
    assert (fit.state, fit.boundaries, fit.can_save, fit.messages) == (None, None, False, [])
    fit.ending.close()


def test_fit_whose_state_is_not_exact_is_only_metered_and_says_why(make):
    fit = make()
    fit.why_not_exact = "it is trained in a thread pool"
    setup(fit)
    assert (fit.state, fit.boundaries) == (None, None)
    assert fit.messages == ["The run is metered, and neither paused nor saved: it is trained in a thread pool."]
    fit.ending.close()


def test_fit_without_checkpointing_is_not_saved_and_has_boundaries(make):
    fit = make()
    setup(fit, saves=False)
    assert not fit.can_save
    assert fit.boundaries is not None
    fit.ending.close()


def test_batch_advances_a_simulated_clock_once(make):
    fit = make()
    for batch in ((0, 0), (0, 0), (0, 1), (1, 1)):
        fit.batch_ended(*batch)
    assert fit.session.clock.time() - fit.session.began == 3 * 600.0


def test_batch_does_not_advance_a_real_clock(make):
    fit = make(clock=SystemClock())
    fit.batch_ended(0, 0)
    assert abs(fit.session.clock.time() - fit.session.began) < 60.0


def test_phase_is_entered_once_and_not_before_the_start(make, tmp_path):
    fit = make()
    fit.enter_phase("validation")  # the sanity check
    fit.begin()
    for phase in ("validation", "validation", "training"):
        fit.enter_phase(phase)
    records = [(record["event"], record["phase"]) for record in read_records(tmp_path / "run")]
    assert records == [("started", "training"), ("phase", "validation"), ("phase", "training")]


def test_events_contain_the_steps_of_the_trainer(make, tmp_path):
    fit = make()
    fit.begin()
    fit.trainer.fit_loop.epoch_loop.automatic_optimization.optim_progress.optimizer.step.total.completed = 7
    fit.session.sample()
    assert [record["global_step"] for record in read_records(tmp_path / "run")] == [0, 7]


def test_waiting_for_batches_is_measured_until_the_fit_ends(make):
    fit = make()
    setup(fit, wants_exact=False)
    wait = 60.0

    def slow(samples):
        fit.session.clock.sleep(wait)
        return torch.stack(samples)

    fit.trainer.fit(RecordingModel(), batches(4, batch_size=1, collate_fn=slow))
    assert fit.session.recorder.data_wait_seconds == pytest.approx(4 * wait)
    fit.ending.close()
    fit.trainer.fit_loop.max_epochs = 2
    fit.trainer.fit(RecordingModel(), batches(4, batch_size=1, collate_fn=slow))
    assert fit.session.recorder.data_wait_seconds == pytest.approx(4 * wait)


@pytest.mark.parametrize(("continuing", "kept"), [(True, True), (False, False)])
def test_identities_of_loggers_are_kept_if_the_fit_continues(opened, tmp_path, continuing, kept):
    session, _ = opened(announce=False)
    session.continuing = continuing
    trainer = quiet_trainer(tmp_path, logger=CSVLogger(tmp_path / "csv"))
    fit = Fit(session, trainer, [])
    fit.prepare_loggers()
    (key,) = session.folder.record["loggers"]
    session.folder.record["loggers"] = {key: "5"}
    again = Fit(session, quiet_trainer(tmp_path, logger=CSVLogger(tmp_path / "csv")), [])
    again.prepare_loggers()
    assert (again.trainer.logger.version == "5") is kept
