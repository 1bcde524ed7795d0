import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lightning_green.metrics import CarbonEmitted, EnergyConsumed, SamplesPerJoule, SoftwareCarbonIntensity

ROOT = Path(__file__).parents[2]

RANKS = """
import os, sys, torch.distributed as dist
from lightning_green.metrics import CarbonEmitted, EnergyConsumed, SamplesPerJoule, SoftwareCarbonIntensity
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=4)
os.environ["LOCAL_RANK"] = str(rank % 2)  # two nodes of two
energy, carbon, samples, sci = EnergyConsumed(), CarbonEmitted(), SamplesPerJoule(), SoftwareCarbonIntensity(3600, 1)
node = 1 + rank // 2
energy.update(node * 3.6e6)
carbon.update(node * 3.6e6, 100.0)
samples.update(10, node * 5.0)
sci.update(10, node * 3.6e6, 100.0, 1.0)
print(*(float(metric.compute()) for metric in (energy, carbon, samples, sci)))
dist.destroy_process_group()
"""


@pytest.mark.distributed
def test_nodes_are_summed_and_no_node_counts_twice(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "SLURM_LOCALID")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANKS, str(rank), str(tmp_path / "store")],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(4)
    ]
    for rank in ranks:
        told, _ = rank.communicate(timeout=120)
        # 1 + 2 kWh; 300 g; 40 samples in 15 J; (300 g + 2 x 1 g embodied) for 40 units
        assert [float(word) for word in told.split()] == pytest.approx([3.0, 300.0, 40 / 15, 302 / 40])


def test_a_joule_is_not_lost_in_a_long_run():
    metric = EnergyConsumed()
    metric.update(3.6e12)
    metric.update(1.0)
    assert float(metric.joules) == 3.6e12 + 1.0
    metric.reset()
    assert float(metric.compute()) == 0.0


def test_without_energy_or_units_there_is_no_number():
    assert math.isnan(float(SamplesPerJoule().compute()))
    assert math.isnan(float(SoftwareCarbonIntensity().compute()))


def test_a_state_goes_through_a_checkpoint(tmp_path):
    metric = CarbonEmitted(pue=1.5)
    metric.persistent(True)
    metric.update(3.6e6, 200.0)
    torch.save(metric.state_dict(), tmp_path / "state")
    other = CarbonEmitted(pue=1.5)
    other.persistent(True)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert float(other.compute()) == 300.0


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_amounts_that_mean_nothing(bad):
    with pytest.raises(ValueError, match="`joules` should"):
        EnergyConsumed(local_rank=0).update(bad)
    with pytest.raises(ValueError, match="`intensity` should"):
        CarbonEmitted(local_rank=0).update(1.0, bad)
    with pytest.raises(ValueError, match="`pue` should"):
        CarbonEmitted(pue=bad)
    with pytest.raises(ValueError, match="`share` should"):
        SoftwareCarbonIntensity(share=bad)
