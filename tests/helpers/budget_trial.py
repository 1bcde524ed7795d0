"""One trial of a sweep with a shared budget: it trains until its budget ends it.

python budget_trial.py FOLDER NUMBER LIMIT

It waits for the file ``go`` in FOLDER, so that the trials train at the same time. A step takes ten milliseconds.
"""

import sys
import time
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel

from lightning_green import EnergyBudget

FOLDER, NUMBER, LIMIT = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])


class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        time.sleep(0.01)
        return super().training_step(batch, batch_idx)


budget = EnergyBudget(kwh=LIMIT, directory=FOLDER / "budget", check_every="0.5s", meter=1000.0)
(FOLDER / f"ready-{NUMBER}").touch()
while not (FOLDER / "go").exists():
    time.sleep(0.02)
trainer = pl.Trainer(
    max_epochs=100_000, accelerator="cpu", callbacks=[budget], logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False, default_root_dir=FOLDER / NUMBER,
)  # fmt: skip
trainer.fit(Model())
print("ENDED", trainer.global_step, budget.status.fraction >= 1.0, flush=True)
