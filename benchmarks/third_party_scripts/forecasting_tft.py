"""Forecast with the Temporal Fusion Transformer of pytorch-forecasting."""

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor
from pytorch_forecasting import GroupNormalizer, QuantileLoss, TemporalFusionTransformer, TimeSeriesDataSet
from recording import callbacks, report

pl.seed_everything(42)
generator = np.random.default_rng(0)
data = pd.DataFrame(
    {
        "time": np.tile(np.arange(60), 6),
        "group": np.repeat([f"group{n}" for n in range(6)], 60),
        "value": np.sin(np.tile(np.arange(60), 6) / 5) + 2 + generator.normal(0, 0.1, 360),
    }
)
training = TimeSeriesDataSet(
    data[data.time < 52],
    time_idx="time",
    target="value",
    group_ids=["group"],
    min_encoder_length=8,
    max_encoder_length=16,
    max_prediction_length=4,
    static_categoricals=["group"],
    time_varying_known_reals=["time"],
    time_varying_unknown_reals=["value"],
    target_normalizer=GroupNormalizer(groups=["group"], transformation="softplus"),
    add_relative_time_idx=True,
    add_target_scales=True,
    add_encoder_length=True,
)
validation = TimeSeriesDataSet.from_dataset(training, data, predict=True, stop_randomization=True)
train_loader = training.to_dataloader(train=True, batch_size=16, num_workers=0)
validation_loader = validation.to_dataloader(train=False, batch_size=16, num_workers=0)

trainer = pl.Trainer(
    max_epochs=4,
    accelerator="cpu",
    gradient_clip_val=0.1,
    limit_train_batches=12,
    callbacks=[EarlyStopping(monitor="val_loss", patience=10), LearningRateMonitor(), *callbacks()],
)
tft = TemporalFusionTransformer.from_dataset(
    training,
    learning_rate=0.03,
    hidden_size=8,
    attention_head_size=1,
    dropout=0.1,
    hidden_continuous_size=8,
    loss=QuantileLoss(),
    log_interval=10,
    optimizer="adam",
    reduce_on_plateau_patience=2,
)
trainer.fit(tft, train_dataloaders=train_loader, val_dataloaders=validation_loader)
best = TemporalFusionTransformer.load_from_checkpoint(trainer.checkpoint_callback.best_model_path, weights_only=False)
forecast = best.predict(validation_loader, trainer_kwargs={"accelerator": "cpu", "logger": False})
report(tft, forecast=forecast)
