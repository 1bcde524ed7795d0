import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.compression_fits import assert_equal

SCRIPT = Path(__file__).parents[1] / "helpers" / "compression_ranks.py"


def fit(names, processes, folder):
    command = [sys.executable, str(SCRIPT), ",".join(names), str(processes), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "sync_dist" not in done.stderr  # what is logged of an epoch is that of both ranks


def load(name, processes, rank, folder):
    return torch.load(folder / f"{name}-{processes}-{rank}.pt", weights_only=True)


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_end_with_the_masks_ranges_and_adapters_of_one(tmp_path):
    names = ["magnitude", "random", "rigl", "2:4"]
    for processes in (1, 2):
        fit([*names, "quantized", "whole", "distilled", "distilled_whole", "cached"], processes, tmp_path)
    for name in names:
        alone, first, second = (load(name, *which, tmp_path) for which in ((1, 0), (2, 0), (2, 1)))
        assert_equal(first, second, name)
        masks = first["callback"]["pruner"]["masks"]
        assert_equal(masks, alone["callback"]["pruner"]["masks"], name)
        for key, mask in masks.items():
            assert (first["weights"][key][~mask] == 0).all()
            assert not mask.all()
    for name in ("quantized", "whole"):
        alone, first, second = (load(name, *which, tmp_path) for which in ((1, 0), (2, 0), (2, 1)))
        assert_equal(first, second, name)
        for key, seen in first["callback"]["ranges"].items():
            assert seen["count"] == alone["callback"]["ranges"][key]["count"] > 0
            assert torch.allclose(seen["range"], alone["callback"]["ranges"][key]["range"], rtol=1e-3)
    alone, first, second = (load("distilled_whole", *which, tmp_path) for which in ((1, 0), (2, 0), (2, 1)))
    assert_equal(first, second, "distilled_whole")
    for key, weight in first["weights"].items():
        assert torch.allclose(weight, alone["weights"][key], atol=1e-3)
    alone, first, second = (load("distilled", *which, tmp_path) for which in ((1, 0), (2, 0), (2, 1)))
    assert_equal(first, second, "distilled")
    # The ranks' losses are means over their own halves, so one rank's gradient is theirs but for rounding.
    ours, theirs = (state["callback"]["adapters"]["weights"]["1"] for state in (first, alone))
    assert torch.allclose(ours, theirs, atol=1e-3)
    first, second = (load("cached", 2, rank, tmp_path)["logged"] for rank in (0, 1))
    assert first["distillation/cache_hits"] == second["distillation/cache_hits"] == 0.5  # the second of two epochs
    assert first["distillation/saved_teacher_seconds"] == second["distillation/saved_teacher_seconds"] > 0.0
    assert first["distillation/saved_kwh_modelled"] == second["distillation/saved_kwh_modelled"]
    # 100 W for the seconds that the cache of rank 0 saved; half of it, were it the mean with rank 1, which has no meter
    kwh = 0.1 * load("cached", 2, 0, tmp_path)["saved"] / 3600
    assert first["distillation/saved_kwh_modelled"] == pytest.approx(kwh, rel=0.3)
