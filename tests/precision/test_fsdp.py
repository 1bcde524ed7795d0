"""``GreenFSDPPrecision`` on two ranks."""

import pytest
import torch

from tests.helpers.precision_ranks import assert_two_ranks_match_one, start

NEEDS_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs: sharding over NCCL")


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("kind", ["fsdp-cpu", pytest.param("fsdp", marks=[NEEDS_GPUS, pytest.mark.gpu])])
def test_fsdp_clips_and_skips_as_one_process(kind, precision, tmp_path):
    """The norm is that of all shards, and an overflow on one rank skips the step of both."""
    assert_two_ranks_match_one(kind, precision, tmp_path)


@pytest.mark.distributed
@pytest.mark.slow
def test_repeated_overflow_with_fsdp_raises(tmp_path):
    process = start("fsdp-cpu", "fp16", tmp_path, 1)
    assert process.returncode != 0
    assert "1 consecutive steps overflowed in fp16 (loss scale 32768)" in process.stderr
    assert "Resume from the last checkpoint with GreenFSDPPrecision('bf16')" in process.stderr
