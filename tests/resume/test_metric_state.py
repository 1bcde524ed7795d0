import lightning.pytorch as pl
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from torchmetrics import CatMetric, MeanMetric, MetricCollection, SumMetric

from lightning_green.resume.metric_state import capture_metrics, restore_last_metrics, restore_metrics
from tests.helpers.trainers import batches, quiet_trainer


class Logging(BoringModel):
    def __init__(self):
        super().__init__()
        self.mean, self.all = MeanMetric(), CatMetric()
        self.group = MetricCollection([SumMetric()])

    def training_step(self, batch, batch_idx):
        value = torch.tensor(float(batch_idx))
        self.mean(value), self.all.update(value), self.group.update(value)
        self.log("mean", self.mean, on_step=False, on_epoch=True)
        self.log("plain", value, on_step=False, on_epoch=True)
        return super().training_step(batch, batch_idx)


class Capture(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 2:
            self.saved = capture_metrics(trainer)


class Restore(pl.Callback):
    """Replaces the metrics after the first batch by those of three batches."""

    def __init__(self, saved):
        self.saved = saved

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == 0:
            restore_metrics(trainer, self.saved)
            self.values = pl_module.all.compute().tolist()
            self.sum = float(pl_module.group["SumMetric"].compute())


def test_metrics_of_an_incomplete_epoch_continue(tmp_path):
    capture = Capture()
    quiet_trainer(tmp_path, capture).fit(Logging(), batches())
    torch.save(capture.saved, tmp_path / "saved")
    restore = Restore(torch.load(tmp_path / "saved", weights_only=True))
    trainer = quiet_trainer(tmp_path, restore)
    trainer.fit(Logging(), batches())
    assert restore.values == [0, 1, 2]
    assert restore.sum == 3
    expected = sum([0, 1, 2, 1, 2, 3, 4, 5]) / 8
    assert float(trainer.callback_metrics["mean"]) == expected
    assert float(trainer.callback_metrics["plain"]) == expected


def test_last_metrics_are_those_of_the_finished_fit(tmp_path):
    capture = Capture()
    quiet_trainer(tmp_path, capture).fit(Logging(), batches(6))
    trainer = quiet_trainer(tmp_path)
    capture.saved["last"]["_callback_metrics"] = {"mean": torch.tensor(7.0)}
    restore_last_metrics(trainer, capture.saved)
    assert float(trainer._logger_connector._callback_metrics["mean"]) == 7.0
