"""Search for the module that produces a non-finite value."""

import pytest
from torch import nn

from lightning_green import EmissionsTracker, GreenMixedPrecision
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
