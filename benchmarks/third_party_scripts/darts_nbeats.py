"""Forecast with N-BEATS of darts, and its validation series."""

import numpy as np
from darts import TimeSeries
from darts.models import NBEATSModel
from recording import callbacks, report, wave

series = TimeSeries.from_values(wave(180).astype(np.float32))
train, validation = series[:140], series[140:]

model = NBEATSModel(
    input_chunk_length=12,
    output_chunk_length=4,
    num_stacks=4,
    num_blocks=1,
    layer_widths=16,
    dropout=0.1,
    batch_size=12,
    n_epochs=4,
    random_state=42,
    pl_trainer_kwargs={"accelerator": "cpu", "enable_checkpointing": True, "callbacks": callbacks()},
)
model.fit(train, val_series=validation)
report(model.model, forecast=model.predict(n=8).values())
