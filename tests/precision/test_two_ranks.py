import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_green import GreenMixedPrecision
from tests.precision.precision_kit import Lit, fit

NEEDS_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs: sharding over NCCL")
SCRIPT = Path(__file__).with_name("sharded.py")


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if arguments[0] != "fsdp":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)


def run(kind, precision, folder):
    done = start(kind, precision, folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{kind}-{precision}-{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("ddp", "fp16"),
        *(("fsdp-cpu", name) for name in ("fp32", "bf16", "fp16")),
        *(pytest.param("fsdp", name, marks=[NEEDS_GPUS, pytest.mark.gpu]) for name in ("fp32", "bf16", "fp16")),
    ],
)
def test_two_ranks_do_what_one_does(kind, precision, tmp_path):
    """Also that an overflow on one rank skips the step of both, and that the norm is that of all shards."""
    first, second = run(kind, precision, tmp_path)
    overflow = {3} if precision == "fp16" else set()
    alone, _ = fit(GreenMixedPrecision(precision), Lit("sgd", overflow, schedule=True), gradient_clip_val=0.05)
    assert first["skipped"] == second["skipped"] == len(overflow)
    assert first["rates"] == second["rates"] == alone.rates
    for name, weight in first["weights"].items():
        # all steps together move the weights by 2.5e-3 at most
        torch.testing.assert_close(weight.float(), alone.state_dict()[name], atol=1e-4, rtol=0)


@pytest.mark.distributed
@pytest.mark.slow
def test_a_sharded_run_that_only_overflows_says_how_to_go_on(tmp_path):
    done = start("fsdp-cpu", "fp16", tmp_path, 1)
    assert done.returncode != 0
    assert "1 steps in a row overflowed in fp16 (loss scale 32768)" in done.stderr
    assert "start again from the last checkpoint with GreenFSDPPrecision('bf16')" in done.stderr
