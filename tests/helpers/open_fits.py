"""A fit whose Trainer does not train, with boundaries on one rank."""

from lightning_green.run.boundaries import Boundaries
from lightning_green.run.fit import Fit
from lightning_green.strategies.control_group import ControlGroup
from tests.helpers.recording_state import RecordingState
from tests.helpers.trainers import RecordingModel, quiet_trainer


def open_fit(session, folder, ranks=None, **options):
    """Return the fit of a session; its state records what is saved."""
    trainer = quiet_trainer(folder, **options)
    trainer.strategy.connect(RecordingModel())
    fit = Fit(session, trainer, [])
    fit.ending.ranks = ControlGroup() if ranks is None else ranks
    state = fit.ending.state = RecordingState()
    ending = fit.ending
    fit.boundaries = Boundaries(
        session, trainer, ending.ranks, state, ending.signals, fit.actions, ending.interrupt, ending.follow
    )
    return fit
