"""Run the last fifth of a training with the rounding of 8-bit integers, and export the model in int8.

pip install 'lightning-green[compression,demo]'
python examples/quantization.py --epochs 6
"""

import argparse

import lightning.pytorch as pl
import torch
from digits import Digits, SmallCNN

from lightning_green import QuantizationAwareTraining
from lightning_green.compression import export


class Module(SmallCNN):
    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 2e-3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=6)
    arguments = parser.parse_args()
    pl.seed_everything(0)
    module, qat = Module(), QuantizationAwareTraining(begin=0.8)
    trainer = pl.Trainer(
        max_epochs=arguments.epochs, accelerator="cpu", callbacks=[qat], logger=False, enable_checkpointing=False
    )
    data = Digits()
    trainer.fit(module, datamodule=data)
    images = [images for images, _ in data.val_dataloader()]
    exported = export(qat.convert(module), "digits.onnx", images)
    floating = sum(p.numel() * 4 for p in module.net.parameters())
    print(f"weights {floating} -> {exported.weight_bytes} bytes, same class {exported.agreement.same_class:.1%}")
