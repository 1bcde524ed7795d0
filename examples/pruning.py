"""Remove half of the parameters during training, as whole channels, and load the checkpoint into a smaller model.

pip install 'lightning-green[compression,demo]'
python examples/pruning.py --epochs 6
"""

import argparse

import lightning.pytorch as pl
import torch
from digits import Digits, SmallCNN

from lightning_green import Pruning
from lightning_green.compression import load_pruned, profile


class Module(SmallCNN):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 2e-3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    pl.seed_everything(0)
    module = Module()
    image = torch.zeros(1, 1, 8, 8)
    before = profile(module.net, image)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs,
        accelerator="cpu",
        callbacks=[Pruning(0.5, granularity="channels", end=0.5)],
        logger=False,
        enable_checkpointing=False,
    )
    trainer.fit(module, datamodule=Digits())
    trainer.save_checkpoint("pruned.ckpt")
    after = profile(load_pruned(Module(), "pruned.ckpt").net, image)
    print(f"parameters {before.parameters} -> {after.parameters}, multiply-adds {before.macs} -> {after.macs}")
    print(f"accuracy {float(trainer.validate(module, datamodule=Digits(), verbose=False)[0]['val/accuracy']):.3f}")
