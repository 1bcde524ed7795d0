"""Probabilistic forecast with the Temporal Fusion Transformer of darts: covariates, checkpoints, early stopping."""

import numpy as np
import pandas as pd
from darts import TimeSeries
from darts.dataprocessing.transformers import Scaler
from darts.models import TFTModel
from darts.utils.likelihood_models import QuantileRegression
from darts.utils.timeseries_generation import datetime_attribute_timeseries
from pytorch_lightning.callbacks import EarlyStopping
from recording import callbacks, report, wave

times = pd.date_range("2020-01-01", periods=160, freq="MS")
series = TimeSeries.from_times_and_values(times, wave(160).astype(np.float32))
train, validation = series[:120], series[96:]
scaler = Scaler()
train, validation = scaler.fit_transform(train), scaler.transform(validation)
months = datetime_attribute_timeseries(series, attribute="month", one_hot=False, dtype=np.float32, add_length=24)
months = Scaler().fit_transform(months)

model = TFTModel(
    input_chunk_length=24,
    output_chunk_length=6,
    hidden_size=8,
    lstm_layers=1,
    num_attention_heads=2,
    dropout=0.1,
    batch_size=8,
    n_epochs=4,
    likelihood=QuantileRegression(quantiles=[0.1, 0.5, 0.9]),
    save_checkpoints=True,
    force_reset=True,
    model_name="tft",
    random_state=42,
    pl_trainer_kwargs={
        "accelerator": "cpu",
        "callbacks": [EarlyStopping(monitor="val_loss", patience=3), *callbacks()],
    },
)
model.fit(train, future_covariates=months, val_series=validation, val_future_covariates=months)
best = TFTModel.load_from_checkpoint("tft", best=True, trusted=True)  # it contains the callbacks
report(model.model, forecast=best.predict(n=6, num_samples=20, series=train).values())
