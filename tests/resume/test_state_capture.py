import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from lightning_green.resume.checkpoints import STATE_KEY, STATE_VERSION
from lightning_green.resume.communication import Communication
from lightning_green.resume.loader_positions import LoaderPositions
from lightning_green.resume.script_attributes import ScriptAttributes
from lightning_green.resume.state_capture import StateCapture
from lightning_green.strategies.control_group import ControlGroup
from tests.helpers.scripted_ranks import ScriptedRanks
from tests.helpers.trainers import RecordingModel, batches, quiet_trainer


class FirstRank(ScriptedRanks):
    """Rank 0 of two, which records what it sends."""

    def __init__(self):
        super().__init__()
        self.broadcasts = []

    def broadcast(self, value=None):
        self.broadcasts.append(value)
        return value

    def gather(self, value):
        return [value]


class SecondRank(ScriptedRanks):
    """Rank 1 of two; it receives what rank 0 sent."""

    def __init__(self, first):
        super().__init__(rank=1)
        self.broadcasts, self.gathered = iter(first.broadcasts), []

    def broadcast(self, value=None):
        return next(self.broadcasts)

    def gather(self, value):
        self.gathered.append(value)
        return []


class Capture(pl.Callback):
    def __init__(self, extra=None, ranks=None, path=None):
        self.extra, self.ranks, self.path = extra, ranks or ControlGroup(), path

    def setup(self, trainer, pl_module, stage):
        self.capture = StateCapture(
            trainer,
            self.ranks,
            LoaderPositions(trainer, lambda: False),
            ScriptAttributes(trainer),
            Communication(trainer),
        )

    def state_dict(self):
        return {"extra": self.extra}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 3:
            self.why = self.capture.why_not_saved("batch")
            self.state = self.capture.dump("batch", self.path) if self.why is None else None


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


class Normalized(RecordingModel):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(32)

    def training_step(self, batch, batch_idx):
        return super().training_step(self.norm(batch), batch_idx)


def test_differing_buffers_are_saved_once_and_weights_in_a_file(tmp_path):
    first = FirstRank()
    for ranks, offset in ((first, 0), (SecondRank(first), 50)):
        data = DataLoader(torch.arange(12.0)[:, None].expand(12, 32) + offset, 2)
        quiet_trainer(tmp_path, Capture(ranks=ranks, path=tmp_path / "state.ckpt")).fit(Normalized(), data)
    own, (name, _, failure), problem = ranks.gathered[-1]
    assert (name, failure, problem) == ("state.rank1.shard", "", None)
    assert own["buffers"].keys() == {"norm.running_mean"}
    saved = {keys[1] for keys, _ in torch.load(tmp_path / name)["parts"] if keys[0] == "state_dict"}
    assert {"layer.weight", "layer.bias"} <= saved <= {"norm.weight", "norm.bias", "layer.weight", "layer.bias"}


class Extra(torch.nn.Module):
    def __init__(self, extra):
        super().__init__()
        self.extra = extra

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


@pytest.mark.parametrize("part", ["state_dict['net._extra_state']", "callbacks['Capture']['extra']"])
def test_state_that_only_another_rank_cannot_save_is_sent_to_rank_zero(part, tmp_path):
    first = FirstRank()
    for ranks, extra in ((first, 3), (SecondRank(first), [lambda: None])):
        model, in_model = RecordingModel(), "net" in part
        model.net = Extra(extra if in_model else 3)
        capture = Capture(3 if in_model else extra, ranks, tmp_path / "state.ckpt")
        quiet_trainer(tmp_path, capture).fit(model, batches())
    found = [one for one in ranks.gathered if one is not None]  # at the check, and at the save
    assert [(own, shard) for own, shard, _ in found] == [({}, None)] * 2
    message = f"{part}[0] is a `builtins.function`, which cannot be saved"
    assert [str(problem) for _, _, problem in found] == [message] * 2
