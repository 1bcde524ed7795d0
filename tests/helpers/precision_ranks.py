"""Fits on two ranks with a precision plugin.

``python precision_ranks.py KIND PRECISION FOLDER [MAX_CONSECUTIVE_SKIPS]`` saves the result of each rank. ``KIND`` is
``ddp`` or ``fsdp-cpu`` (CPU, gloo), or ``fsdp`` (GPUs, NCCL).
"""

import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import FSDPStrategy
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.utils.data import DataLoader, DistributedSampler

from lightning_green import GreenFSDPPrecision, GreenMixedPrecision
from tests.helpers.precision_fits import Lit, fit


class CPUFSDPStrategy(FSDPStrategy):
    """FSDP on CPU. PyTorch requires a device, and Lightning passes only the index of a GPU."""

    def _setup_model(self, model):
        return FullyShardedDataParallel(
            model, mixed_precision=self.mixed_precision_config, device_id=self.root_device, **self.kwargs
        )


STRATEGIES = {"ddp": lambda: "ddp", "fsdp": FSDPStrategy, "fsdp-cpu": CPUFSDPStrategy}


class ShardedLit(Lit):
    """``Lit`` with half of each batch per rank. Only rank 1 overflows."""

    def train_dataloader(self):
        data = super().train_dataloader().dataset
        return DataLoader(data, batch_size=4, sampler=DistributedSampler(data, 2, self.trainer.global_rank, False))

    def training_step(self, batch, batch_idx):
        loss = self.loss(batch)
        return loss * 1e38 if batch_idx in self.overflow and self.trainer.global_rank == 1 else loss


def start(*arguments):
    """Run this file in a new process and return the completed process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if arguments[0] != "fsdp":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def assert_two_ranks_match_one(kind, precision, folder):
    """Check that both ranks skip the same steps and end with the weights of a fit in one process."""
    process = start(kind, precision, folder)
    assert process.returncode == 0, process.stderr[-3000:]
    first, second = (torch.load(folder / f"{kind}-{precision}-{rank}.pt", weights_only=True) for rank in (0, 1))
    overflow = {3} if precision == "fp16" else set()
    single, _ = fit(GreenMixedPrecision(precision), Lit("sgd", overflow, schedule=True), gradient_clip_val=0.05)
    assert first["skipped"] == second["skipped"] == len(overflow)
    assert first["rates"] == second["rates"] == single.rates
    for name, weight in first["weights"].items():
        # all steps together change the weights by 2.5e-3 at most
        torch.testing.assert_close(weight.float(), single.state_dict()[name], atol=1e-4, rtol=0)


def main(kind, precision, folder, skips=16):
    plugin_class = GreenMixedPrecision if kind == "ddp" else GreenFSDPPrecision
    module = ShardedLit("sgd", {3} if precision == "fp16" else (), schedule=True)
    plugin = plugin_class(precision, max_consecutive_skips=int(skips))
    trainer = pl.Trainer(
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
    trainer.fit(module)
    if kind == "fsdp-cpu":  # PyTorch crashes when it saves a model sharded on CPU: the full weights are freed too early
        with FullyShardedDataParallel.summon_full_params(trainer.strategy.model):
            weights = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    else:
        trainer.save_checkpoint(Path(folder) / f"{kind}-{precision}.ckpt")
        weights = dict(trainer.strategy.lightning_module_state_dict())
    result = {
        "skipped": plugin.skipped_steps,
        "rates": module.rates,
        "weights": {name.replace("_fsdp_wrapped_module.", ""): weight for name, weight in weights.items()},
    }
    torch.save(result, Path(folder) / f"{kind}-{precision}-{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
