"""Fits in this process that a signal stops, and that the next fit of the same directory continues."""

import os
import signal
from typing import NamedTuple

import lightning.pytorch as pl

from lightning_green import ExactResume
from tests.helpers.resume_training import CLOCK, quiet
from tests.helpers.trainers import quiet_trainer


class Interrupt(pl.Callback):
    """Ctrl-C during a batch."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGINT)


class StopAfter(pl.Callback):
    """A SIGTERM after an optimizer step."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            signal.raise_signal(signal.SIGTERM)


class Part(NamedTuple):
    """What one process would have trained."""

    stopped: bool
    trained: int
    trainer: pl.Trainer


def train_part(folder, module, *data, stop=None, callbacks=(), last=(), ckpt_path=None, **options):
    """Start or continue the fit of a directory, and stop it after the step ``stop``; ``trained`` counts the batches.

    ``callbacks`` come before ``ExactResume``, and ``last`` after it.
    """
    trained = []
    with quiet():
        os.environ.update(
            LIGHTNING_GREEN_RUN_DIR=str(folder / "run"), LIGHTNING_GREEN_RESUME="1", LIGHTNING_GREEN_CLOCK=CLOCK
        )
        count = pl.callbacks.LambdaCallback(on_train_batch_start=lambda *args: trained.append(1))
        callbacks = [*callbacks, ExactResume(), StopAfter(stop), count, *last]
        trainer = quiet_trainer(folder, *callbacks, enable_checkpointing=True, **options)
        try:
            trainer.fit(module, *data, ckpt_path=ckpt_path)
        except (SystemExit, KeyboardInterrupt):
            return Part(True, len(trained), trainer)
    return Part(False, len(trained), trainer)


def assert_continues_exactly(train, folder, stop):
    """Assert that a stopped and continued fit trains the remaining batches and ends like an uninterrupted one.

    ``train(folder, stop)`` returns the part and a digest of what the fit ends with.
    """
    straight, expected = train(folder / "straight", None)
    first, _ = train(folder / "stopped", stop)
    second, found = train(folder / "stopped", None)
    assert first.stopped
    assert first.trained + second.trained == straight.trained
    assert found == expected
