"""Search of hyperparameters with an `Auto` model of neuralforecast: several trainings, then one of the best."""

import optuna
from neuralforecast import NeuralForecast
from neuralforecast.auto import AutoNHITS
from recording import callbacks, frame, report


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
forecast.fit(df=frame(8), val_size=16)
values = forecast.predict().drop(columns=["unique_id", "ds"]).to_numpy()
report(forecast.models[0].model, forecast=values)
