import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_green._lightning.loops import (
    batch_position,
    between_steps,
    clear_restart_flags,
    is_training_stage,
    may_be_last_batch,
    should_accumulate,
    skip_training,
    wrap_loops,
    wrap_sanity_check,
)
from tests.helpers.trainers import RecordingModel, batches, quiet_trainer


def wrapped(trainer, found, is_tuning=lambda: False):
    def note(name):
        return lambda: found.append((name, *batch_position(trainer)))

    return wrap_loops(
        trainer, is_tuning, note("before epoch"), note("before batches"), note("after batch"), note("after run")
    )


def test_wrapped_loops_call_back_between_batches_and_epochs(tmp_path):
    trainer, found = quiet_trainer(tmp_path, max_epochs=2), []
    wrapped(trainer, found)
    trainer.fit(BoringModel(), batches(4))
    assert found == [
        ("before epoch", 0, 0),
        ("before batches", 0, 0),
        ("after batch", 0, 1),
        ("after batch", 0, 2),
        ("before epoch", 1, 2),
        ("before batches", 1, 0),
        ("after batch", 1, 1),
        ("after batch", 1, 2),
        ("after run", 2, 2),
    ]


def test_wrapped_loops_do_not_call_back_while_a_tuner_runs_or_after_undo(tmp_path):
    trainer, found = quiet_trainer(tmp_path), []
    wrapped(trainer, found, is_tuning=lambda: True)
    trainer.fit(BoringModel(), batches(4))
    assert found == []
    trainer = quiet_trainer(tmp_path)
    wrapped(trainer, found)()
    trainer.fit(BoringModel(), batches(4))
    assert found == []


@pytest.mark.parametrize("tuning", [False, True])
def test_function_before_a_batch_is_called_instead_of_lightnings_broadcast(tuning, tmp_path, monkeypatch):
    trainer, found, broadcast = quiet_trainer(tmp_path), [], []
    loop = trainer.fit_loop.epoch_loop
    monkeypatch.setattr(loop, "_broadcast_sigterm_tensor", lambda: broadcast.append(1))
    ignore = [lambda: None] * 5
    wrap_loops(trainer, lambda: tuning, *ignore[:4], lambda: found.append(may_be_last_batch(trainer)))

    class Broadcast(pl.Callback):  # as the loop does with several ranks
        def on_train_start(self, trainer, pl_module):
            advance = loop.advance
            loop.advance = lambda fetcher: (loop._broadcast_sigterm_tensor(), advance(fetcher))

    trainer.callbacks.append(Broadcast())
    trainer.fit(BoringModel(), batches(4))
    assert (found, broadcast) == (([], [1, 1]) if tuning else ([False, True], []))


def test_positions_with_accumulated_gradients(tmp_path):
    found = []

    class Inspect(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            found.append((between_steps(trainer), should_accumulate(trainer), is_training_stage(trainer)))

    quiet_trainer(tmp_path, Inspect(), accumulate_grad_batches=2).fit(BoringModel(), batches(8))
    assert [one[:2] for one in found] == [(False, True), (True, False), (False, True), (False, False)]
    assert all(training for *_, training in found)


def test_skipped_training_sets_up_the_data_and_trains_nothing(tmp_path):
    trainer, model, checked = quiet_trainer(tmp_path), RecordingModel(), []
    undo = skip_training(trainer, lambda: checked.append(trainer.num_training_batches))
    trainer.fit(model, batches())
    assert checked == [6]
    assert model.seen == []
    undo()
    trainer.fit(model, batches())
    assert len(model.seen) == 6


@pytest.mark.parametrize("steps", [0, 1])
def test_wrapped_sanity_check_calls_back_outside_its_hooks_until_it_is_undone(steps, tmp_path):
    class Hooks(pl.Callback):
        def on_sanity_check_start(self, trainer, pl_module):
            found.append("start")

        def on_sanity_check_end(self, trainer, pl_module):
            found.append("end")

    options = {"num_sanity_val_steps": steps, "limit_val_batches": 1}
    trainer, found = quiet_trainer(tmp_path, Hooks(), **options), []
    hooks = ["start", "end"] * steps
    undo = wrap_sanity_check(trainer, lambda: found.append("before"), lambda: found.append("after"))
    trainer.fit(BoringModel(), batches(), batches())
    assert found == ["before", *hooks, "after"]
    undo()
    found.clear()
    trainer.fit(BoringModel(), batches(), batches())
    assert found == hooks


@pytest.mark.parametrize("clear", [True, False])
def test_without_restart_flags_the_validation_of_the_next_epoch_is_not_skipped(clear, tmp_path):
    saving = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    quiet_trainer(tmp_path, saving, enable_checkpointing=True).fit(BoringModel(), batches())

    trainer = quiet_trainer(tmp_path)
    module = BoringModel()
    trainer.strategy.connect(module)
    loops = torch.load(tmp_path / "step=3.ckpt", weights_only=False)["loops"]["fit_loop"]
    trainer.fit_loop.load_state_dict(loops)
    assert trainer.fit_loop.epoch_loop.restarting
    if clear:
        clear_restart_flags(trainer)
    loops = (trainer.fit_loop, trainer.fit_loop.epoch_loop, trainer.fit_loop.epoch_loop.val_loop)
    assert [loop.restarting for loop in loops] == [not clear] * 3
