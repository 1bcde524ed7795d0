import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_green._lightning.metric_results import (
    last_metrics,
    logged_results,
    set_last_metrics,
    set_logged_results,
)
from tests.helpers.trainers import batches, quiet_trainer


class Logging(BoringModel):
    def training_step(self, batch, batch_idx):
        output = super().training_step(batch, batch_idx)
        self.log("index", float(batch_idx), on_step=False, on_epoch=True)
        self.log("last", float(batch_idx))
        return output


class SaveAt(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 2:
            self.results, self.metrics = logged_results(trainer), last_metrics(trainer)


class SetAt(pl.Callback):
    def __init__(self, saved):
        self.saved = saved

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            set_logged_results(trainer, self.saved.results, {})
            set_last_metrics(trainer, self.saved.metrics)
            self.last = dict(trainer._logger_connector._callback_metrics)


def test_epoch_mean_continues_from_the_restored_results(tmp_path):
    saved = SaveAt()
    quiet_trainer(tmp_path, saved).fit(Logging(), batches())
    values = {one["key"]: float(one["value"]) for one in saved.results if one["is_tensor"]}
    assert values["training_step.index"] == (0 + 1 + 2) * 2  # weighted by the batch size

    trainer = quiet_trainer(tmp_path, SetAt(saved))
    trainer.fit(Logging(), batches())
    index = (0 + 1 + 2) + (1 + 2 + 3 + 4 + 5)  # the results of batch 0 are replaced
    assert float(trainer.callback_metrics["index"]) == index / 8


def test_last_metrics_are_restored(tmp_path):
    saved = SaveAt()
    quiet_trainer(tmp_path, saved).fit(Logging(), batches())
    restore = SetAt(saved)
    quiet_trainer(tmp_path, restore).fit(Logging(), batches())
    assert float(restore.last["last"]) == 2.0
