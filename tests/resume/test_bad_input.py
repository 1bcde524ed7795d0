"""A checkpoint that is damaged or belongs to another script is refused, and the run is unchanged."""

import json
import os
import re
import shutil

import pytest
import torch
from torch import nn

from lightning_green.resume.checkpoints import Owner, list_checkpoints, load_checkpoint
from lightning_green.run.run import OtherTrainingError
from tests.helpers import resume_training
from tests.helpers.resume_training import Case, attempt, differences, outcome

CASE = Case(save_every="2m")


@pytest.fixture
def stopped(tmp_path):
    """Return the folder of a run with two checkpoints that failed at batch 8."""
    folder = tmp_path / "stopped"
    assert attempt(folder, CASE, "error@batch:8") is not None
    assert len(list_checkpoints(folder / "run", 0)) == 2
    return folder


def content(folder):
    """Return the recorded fits and the checkpoints of a run; other records of a start may change."""
    fits = json.loads((folder / "run" / "run.json").read_text())["fits"]
    return fits, {path.name: path.read_bytes() for path in (folder / "run" / "checkpoints").iterdir()}


class Wider(resume_training.Net):
    def __init__(self, case, record):
        super().__init__(case, record)
        self.net[4] = nn.Linear(8, 3)


class Other(resume_training.Net):
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-2)


@pytest.mark.parametrize(
    ("model", "field"), [(Wider, r"net\.4\.weight: \[2, 8\] then, \[3, 8\] now"), (Other, r"Net then, .*Other now")]
)
def test_changed_model_or_optimizer_is_refused(model, field, stopped, monkeypatch):
    before = content(stopped)
    monkeypatch.setattr(resume_training, "Net", model)
    with pytest.raises(OtherTrainingError, match=field) as refused:
        attempt(stopped, CASE)
    assert "--fresh" in str(refused.value)
    assert content(stopped) == before
    monkeypatch.undo()
    assert attempt(stopped, CASE) is None  # and the right script still resumes


def test_changed_data_length_is_refused(stopped):
    before = content(stopped)
    with pytest.raises(OtherTrainingError, match=r"total_steps: 32 then, 40 now"):
        attempt(stopped, Case(save_every="2m", samples=40))
    assert content(stopped) == before


def test_changed_data_length_is_accepted_with_force(stopped, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_FORCE", "1")
    assert attempt(stopped, Case(save_every="2m", samples=40)) is None


def test_changed_number_of_processes_is_refused(stopped):
    file = stopped / "run" / "run.json"
    record = json.loads(file.read_text())
    record["fits"]["0"]["optimization"]["world_size"] = 2
    file.write_text(json.dumps(record))
    before = content(stopped)
    with pytest.raises(OtherTrainingError, match="world_size: 2 then, 1 now"):
        attempt(stopped, CASE)
    assert content(stopped) == before


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def flip(path):
    data = bytearray(path.read_bytes())
    data[:64] = bytes(byte ^ 0xFF for byte in data[:64])
    path.write_bytes(data)


def something_else(path):
    torch.save({"weights": torch.zeros(3)}, path)


@pytest.mark.parametrize("damage", [cut, flip, something_else])
def test_previous_checkpoint_replaces_a_damaged_one(damage, stopped, tmp_path):
    _, newer = list_checkpoints(stopped / "run", 0)
    damage(newer.path)
    with pytest.raises(RuntimeError, match=f"{re.escape(newer.path.name)} is damaged"):
        load_checkpoint(newer.path)
    assert attempt(stopped, CASE) is None
    assert attempt(tmp_path / "whole", CASE) is None
    assert differences(outcome(tmp_path / "whole"), outcome(stopped)) == []


def test_run_without_a_readable_checkpoint_is_refused(stopped):
    for stored in list_checkpoints(stopped / "run", 0):
        cut(stored.path)
    before = content(stopped)
    with pytest.raises(RuntimeError, match=r"No checkpoint of the run in .* can be read") as refused:
        attempt(stopped, CASE)
    assert "--fresh" in str(refused.value)
    assert content(stopped) == before


def test_checkpoint_of_another_run_is_not_used(stopped, tmp_path, caplog):
    assert attempt(tmp_path / "other", CASE, "error@batch:8") is not None
    _, newer = list_checkpoints(stopped / "run", 0)
    foreign = list_checkpoints(tmp_path / "other" / "run", 0)[-1].path
    shutil.copy(foreign, newer.path)
    assert attempt(stopped, CASE) is None
    assert f"The checkpoint {newer.path} belongs to another run or fit, and is not used" in caplog.text
    assert attempt(tmp_path / "whole", CASE) is None
    assert differences(outcome(tmp_path / "whole"), outcome(stopped)) == []


def test_run_with_checkpoints_of_another_run_only_is_refused(stopped, tmp_path):
    assert attempt(tmp_path / "other", CASE, "error@batch:8") is not None
    for stored in list_checkpoints(stopped / "run", 0):
        shutil.copy(list_checkpoints(tmp_path / "other" / "run", 0)[-1].path, stored.path)
    with pytest.raises(RuntimeError, match=r"belongs to another run or fit, and is not used. Start from scratch with"):
        attempt(stopped, CASE)


def test_final_state_belongs_to_one_fit_of_one_run(stopped):
    assert attempt(stopped, CASE) is None
    final = stopped / "run" / "checkpoints" / "fit0-final.ckpt"
    run_id = json.loads((stopped / "run" / "run.json").read_text())["run_id"]
    assert load_checkpoint(final, Owner(run_id, 0))["global_step"] == 12
    for owner in (Owner(run_id, 1), Owner("another", 0)):
        with pytest.raises(RuntimeError, match="belongs to another run or fit"):
            load_checkpoint(final, owner)


def test_moved_run_continues(stopped, tmp_path):
    stopped.rename(tmp_path / "moved")
    assert attempt(tmp_path / "moved", CASE) is None
    assert attempt(tmp_path / "whole", CASE) is None
    assert differences(outcome(tmp_path / "whole"), outcome(tmp_path / "moved")) == []


def test_training_states_are_private(stopped):
    folder = stopped / "run" / "checkpoints"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_every_checkpoint_loads_with_weights_only(stopped):
    for stored in list_checkpoints(stopped / "run", 0):
        assert torch.load(stored.path, weights_only=True)["global_step"] == stored.global_step
    assert attempt(stopped, CASE) is None
    (final,) = (stopped / "run" / "checkpoints").iterdir()
    assert torch.load(final, weights_only=True)["global_step"] == 12


def test_partial_checkpoint_is_ignored(stopped, tmp_path):
    (stopped / "run" / "checkpoints" / ".fit0-step000000009-9.ckpt.tmp").write_bytes(b"PK half")
    assert attempt(stopped, CASE) is None
    assert attempt(tmp_path / "whole", CASE) is None
    assert differences(outcome(tmp_path / "whole"), outcome(stopped)) == []


def test_previous_checkpoint_replaces_an_empty_one(tmp_path):
    case = Case(save_every="2m")
    assert attempt(tmp_path, case, "error@batch:8") is not None
    list_checkpoints(tmp_path / "run", 0)[-1].path.write_bytes(b"")
    assert attempt(tmp_path, case) is None
