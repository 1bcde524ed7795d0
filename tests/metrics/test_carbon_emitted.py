"""Emissions of all nodes."""

import torch

from lightning_green.metrics import CarbonEmitted


def test_state_is_saved_and_loaded(tmp_path):
    metric = CarbonEmitted(pue=1.5)
    metric.persistent(True)
    metric.update(3.6e6, 200.0)
    torch.save(metric.state_dict(), tmp_path / "state")
    other = CarbonEmitted(pue=1.5)
    other.persistent(True)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert float(other.compute()) == 300.0
