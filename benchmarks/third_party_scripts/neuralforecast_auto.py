"""Search of hyperparameters with an `Auto` model of neuralforecast: several trainings, then one of the best."""

import numpy as np
import optuna
import pandas as pd
from neuralforecast import NeuralForecast
from neuralforecast.auto import AutoNHITS
from recording import callbacks, report

generator = np.random.default_rng(0)
frame = pd.concat(
    pd.DataFrame(
        {
            "unique_id": f"series{n}",
            "ds": pd.date_range("2020-01-01", periods=120, freq="D"),
            "y": np.sin(np.arange(120) / 5 + n) + generator.normal(0, 0.1, 120),
        }
    )
    for n in range(8)
)


def config(trial):
    return {
        "input_size": 16,
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "mlp_units": [[8, 8]] * 3,
        "max_steps": 15,
        "val_check_steps": 5,
        "batch_size": 4,
        "windows_batch_size": 16,
        "random_seed": 1,
        "accelerator": "cpu",
        "callbacks": callbacks(),
    }


model = AutoNHITS(h=8, config=config, backend="optuna", search_alg=optuna.samplers.TPESampler(seed=0), num_samples=3)
forecast = NeuralForecast(models=[model], freq="D")
forecast.fit(df=frame, val_size=16)
values = forecast.predict().drop(columns=["unique_id", "ds"]).to_numpy()
report(forecast.models[0].model, forecast=values)
