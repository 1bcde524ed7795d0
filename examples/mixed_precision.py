"""Mixed precision in the best format of the device, with a head in float32 and a count of skipped steps.

pip install 'lightning-green[demo]'
python examples/mixed_precision.py                     # bf16 or fp16 if it is fast on the device, otherwise fp32
python examples/mixed_precision.py --precision fp16    # float16 with loss scaling
"""

import argparse

import lightning.pytorch as pl
import torch
from digits import Digits, SmallCNN

from lightning_green import GreenMixedPrecision


class Module(SmallCNN):
    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 3e-3, fused=True)  # clipping works with fused optimizers
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]  # skips with the optimizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--precision", default="auto", choices=["auto", "bf16", "fp16", "fp32"])
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    pl.seed_everything(0)
    plugin = GreenMixedPrecision(arguments.precision, keep_fp32=["net.11"])  # the last layer
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        plugins=[plugin],  # instead of precision="16-mixed"
        gradient_clip_val=1.0,
        accumulate_grad_batches=2,
        logger=False,
        enable_checkpointing=False,
    )
    module = Module()
    trainer.fit(module, datamodule=Digits())
    accuracy = trainer.validate(module, datamodule=Digits(), verbose=False)[0]["val/accuracy"]
    print(f"precision {plugin.precision}, accuracy {accuracy:.3f}, skipped steps {plugin.skipped_steps}")
