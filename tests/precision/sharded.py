"""Fits on two ranks and saves what each rank ends with.

``python sharded.py ddp|fsdp-cpu|fsdp PRECISION FOLDER [SKIPS]``: DDP and FSDP on CPU over gloo, FSDP on GPUs over NCCL.
"""

import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from lightning_green import GreenFSDPPrecision, GreenMixedPrecision
from tests.precision.precision_kit import Lit


class OnCPU(FSDPStrategy):
    """FSDP on CPU: torch wants to be told the device, and Lightning tells only the index of a GPU."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(
            model, mixed_precision=self.mixed_precision_config, device_id=self.root_device, **self.kwargs
        )


STRATEGIES = {"ddp": lambda: "ddp", "fsdp": FSDPStrategy, "fsdp-cpu": OnCPU}


class Shared(Lit):
    def train_dataloader(self):
        data = super().train_dataloader().dataset
        return DataLoader(data, batch_size=4, sampler=DistributedSampler(data, 2, self.trainer.global_rank, False))

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)  # only rank 1 overflows
        return loss * 1e38 if batch_idx in self.overflow and self.trainer.global_rank == 1 else loss


def main(kind, precision, folder, skips=16):
    green = GreenMixedPrecision if kind == "ddp" else GreenFSDPPrecision
    module, plugin = (
        Shared("sgd", {3} if precision == "fp16" else (), schedule=True),
        green(precision, max_consecutive_skips=int(skips)),
    )
    made = pl.Trainer(
        accelerator="gpu" if kind == "fsdp" else "cpu",
        strategy=STRATEGIES[kind](),
        devices=2,
        max_epochs=1,
        plugins=[plugin],
        gradient_clip_val=0.05,
        use_distributed_sampler=False,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )
    made.fit(module)
    if kind == "fsdp-cpu":  # torch crashes where it writes what is sharded on CPU: the full weights are freed too early
        with FullyShardedDataParallel.summon_full_params(made.strategy.model):
            weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    else:
        made.save_checkpoint(Path(folder) / f"{kind}-{precision}.ckpt")
        weights = dict(made.strategy.lightning_module_state_dict())
    end = {
        "skipped": plugin.skipped_steps,
        "rates": module.rates,
        "weights": {name.replace("_fsdp_wrapped_module.", ""): weight for name, weight in weights.items()},
    }
    torch.save(end, Path(folder) / f"{kind}-{precision}-{made.global_rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
