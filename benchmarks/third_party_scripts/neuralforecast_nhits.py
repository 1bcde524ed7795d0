"""Forecast with two models of neuralforecast."""

from neuralforecast import NeuralForecast
from neuralforecast.models import LSTM, NHITS
from recording import callbacks, frame, report

forecast = NeuralForecast(
    models=[
        NHITS(
            h=8, input_size=16, max_steps=36, val_check_steps=6, early_stop_patience_steps=5, batch_size=4,
            windows_batch_size=32, mlp_units=[[16, 16]] * 3, dropout_prob_theta=0.1, scaler_type="standard",
            accelerator="cpu", enable_checkpointing=True, callbacks=callbacks(),
        ),
        LSTM(
            h=8, input_size=16, max_steps=24, val_check_steps=6, batch_size=4, encoder_hidden_size=8,
            decoder_hidden_size=8, encoder_dropout=0.1, scaler_type="robust", accelerator="cpu",
            enable_checkpointing=True, callbacks=callbacks(),
        ),
    ],
    freq="D",
)  # fmt: skip
forecast.fit(df=frame(12), val_size=16)
values = forecast.predict().drop(columns=["unique_id", "ds"]).to_numpy()
for model in forecast.models:
    report(model, forecast=values, losses=[model.train_trajectories, model.valid_trajectories])
