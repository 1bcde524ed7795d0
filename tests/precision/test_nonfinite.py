"""Search for the module that produces a non-finite value."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from lightning_green import EmissionsTracker, GreenMixedPrecision
from lightning_green.precision.nonfinite import first_nonfinite
from tests.helpers.ledgers import read_records
from tests.helpers.precision_fits import Lit, fit


def test_nonfinite_loss_reports_the_module(tmp_path):
    class Bad(nn.Module):
        def forward(self, x):
            return x / (x * 0)

    module = Lit("sgd")
    module.body.append(Bad())
    plugin = GreenMixedPrecision("fp32", find_nonfinite=True)
    with pytest.warns(UserWarning, match=r"`body.3` \(Bad; its inputs are finite\)"):
        fit(
            plugin,
            module,
            limit_train_batches=3,
            callbacks=[EmissionsTracker(meter=50.0)],
            default_root_dir=tmp_path,
        )
    (ledger,) = tmp_path.rglob("ledger.*.jsonl")
    (event,) = [record for record in read_records(ledger.parent) if record["event"] == "nonfinite_loss"]
    assert "`body.3`" in event["reason"]


def test_check_restores_buffers_and_random_states():
    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    model = nn.Sequential(nn.BatchNorm1d(3))
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    expected, x = draw(), torch.randn(4, 3)
    random.seed(0), np.random.seed(0), torch.manual_seed(0)
    first_nonfinite(model, lambda: (draw(), model(x)))
    assert draw() == expected
    assert int(model[0].num_batches_tracked) == 0
