import lightning.pytorch as pl

from lightning_green.resume.checkpoints import STATE_KEY, STATE_VERSION
from lightning_green.resume.communication import Communication
from lightning_green.resume.loader_positions import LoaderPositions
from lightning_green.resume.script_attributes import ScriptAttributes
from lightning_green.resume.state_capture import StateCapture
from lightning_green.strategies.control_group import ControlGroup
from tests.helpers.trainers import RecordingModel, batches, quiet_trainer


class Capture(pl.Callback):
    def __init__(self, extra=None):
        self.extra = extra

    def setup(self, trainer, pl_module, stage):
        self.capture = StateCapture(
            trainer,
            ControlGroup(),
            LoaderPositions(trainer, lambda: False),
            ScriptAttributes(trainer),
            Communication(trainer),
        )

    def state_dict(self):
        return {"extra": self.extra}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 3:
            self.why = self.capture.why_not_saved("batch")
            self.state = self.capture.dump("batch") if self.why is None else None


def test_state_contains_lightnings_checkpoint_and_the_state_of_the_rank(tmp_path):
    capture = Capture()
    quiet_trainer(tmp_path, capture).fit(RecordingModel(), batches())
    assert capture.why is None
    assert capture.state["global_step"] == 4
    assert not any("hyper" in key or "hparams" in key for key in capture.state)
    saved = capture.state[STATE_KEY]
    assert (saved["version"], saved["point"], len(saved["ranks"])) == (STATE_VERSION, "batch", 1)
    assert {"random", "logged", "loaders", "elapsed", "buffers", "gradients"} <= set(saved["ranks"][0])


def test_reason_names_the_state_of_a_callback_that_cannot_be_saved(tmp_path):
    capture = Capture(extra=lambda: None)
    quiet_trainer(tmp_path, capture).fit(RecordingModel(), batches())
    assert capture.why == "callbacks['Capture']['extra'] is a `builtins.function`, which cannot be saved"
