"""A training of a few seconds that exits at given steps, for jobs of a real SLURM.

Variables: ``EXITS`` (steps at which it exits, separated by commas), ``AWAY`` (seconds of an exit), ``RETURN`` (its
return time in seconds), ``STEPS``, ``STEP_SECONDS``, ``NO_AUTO_REQUEUE`` (if not empty, Lightning
does not requeue the job) and ``IMPORT_SECONDS`` (a pause before the imports, in which the process has no signal
handler). Without ``LIGHTNING_GREEN_RUN_DIR`` it is the plain run.
"""

import hashlib
import os
import time
import warnings
from datetime import timedelta

print("importing", flush=True)
time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))
warnings.simplefilter("ignore")

import lightning.pytorch as pl  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch.plugins.environments import SLURMEnvironment  # noqa: E402

from lightning_green import CarbonScheduler  # noqa: E402
from lightning_green.ledger.events import Paused  # noqa: E402
from lightning_green.supervisor.launchers import kept_allocation  # noqa: E402

print(f"keeps {kept_allocation()}", flush=True)
EXITS = {int(step) for step in os.environ.get("EXITS", "").split(",") if step}
AWAY, RETURN = float(os.environ.get("AWAY", "16")), float(os.environ.get("RETURN", "0"))
STEPS, STEP_SECONDS = int(os.environ.get("STEPS", "60")), float(os.environ.get("STEP_SECONDS", "0.02"))


class ExitsAtSteps(CarbonScheduler):
    """Exits at given steps, for seconds instead of hours."""

    def _at_boundary(self, point):
        if point != "batch" or self._fit.trainer.global_step not in EXITS:
            return
        until = self._fit.clock.now() + timedelta(seconds=AWAY)
        job = {"return_time": RETURN / 3600.0}
        measured = self._maker.return_time.startup_seconds(self._maker.timer.seconds_per_batch)
        paused = Paused(reason="the grid is dirty", until=until, job=job, startup_seconds=measured)
        self._fit.ending.exit_until(point, paused)


class Net(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.2), torch.nn.Linear(16, 1))

    def training_step(self, batch, index):
        time.sleep(STEP_SECONDS)
        if index % 10 == 0:
            print("step", self.global_step, flush=True)
        return torch.nn.functional.mse_loss(self.net(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def main():
    pl.seed_everything(0)
    torch.set_num_threads(1)
    features = torch.randn(640, 8)
    data = torch.utils.data.TensorDataset(features, features.sum(1, keepdim=True))
    model = Net()
    trainer = pl.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        devices=1,
        callbacks=[ExitsAtSteps(meter=100.0)] if "LIGHTNING_GREEN_RUN_DIR" in os.environ else [],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        plugins=[SLURMEnvironment(auto_requeue=False)] if os.environ.get("NO_AUTO_REQUEUE") else None,
        enable_checkpointing="LIGHTNING_GREEN_RUN_DIR" in os.environ,
    )
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=16, shuffle=True))
    weights = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    print("FINAL", trainer.global_step, hashlib.sha256(weights.numpy().tobytes()).hexdigest(), flush=True)


if __name__ == "__main__":
    main()
