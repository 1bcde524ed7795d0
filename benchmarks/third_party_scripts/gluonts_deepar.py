"""Forecast with DeepAR of gluonts."""

import lightning.pytorch as pl
import numpy as np
import pandas as pd
from gluonts.dataset.pandas import PandasDataset
from gluonts.torch import DeepAREstimator
from recording import callbacks, report

pl.seed_everything(0)
times = pd.date_range("2020-01-01", periods=200, freq="h")
generator = np.random.default_rng(0)
frames = {
    f"series{n}": pd.DataFrame({"target": np.sin(np.arange(200) / 4 + n) + generator.normal(0, 0.1, 200)}, index=times)
    for n in range(4)
}
data = PandasDataset(frames)

estimator = DeepAREstimator(
    prediction_length=6,
    freq="h",
    context_length=12,
    num_layers=1,
    hidden_size=12,
    batch_size=16,
    num_batches_per_epoch=10,
    trainer_kwargs={"max_epochs": 4, "accelerator": "cpu", "callbacks": callbacks()},
)
predictor = estimator.train(data, validation_data=data)
pl.seed_everything(1)
report(predictor.prediction_net, forecast=[one.samples for one in predictor.predict(data)])
