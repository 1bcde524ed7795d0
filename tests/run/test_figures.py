"""The metrics of a fit and its summary."""

import math

import pytest

from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.grid.providers.function import FunctionSignal
from lightning_green.ledger.totals import PHASES
from lightning_green.run.figures import LiveMetrics, summarize
from tests.helpers.ledgers import read_records
from tests.helpers.sessions import START, advance

ALWAYS = {"energy/kwh", "carbon/state", "carbon/elapsed_hours", *(f"energy/{phase}_kwh" for phase in PHASES)}


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"meter": None}, {"carbon/state", "carbon/elapsed_hours"}),  # unknown, and not 0
        ({}, ALWAYS | {"energy/power_w"}),
        (
            {"meter": ConstantPowerMeter({"cpu": 100.0, "gpu": 200.0, "ram": 10.0}), "grid": 100.0},
            ALWAYS
            | {"energy/power_w", "carbon/intensity", "carbon/gco2e"}
            | {f"energy/{name}_kwh" for name in ("cpu", "gpu", "ram")},
        ),
        (
            {"grid": FunctionSignal(lambda at: 100.0, kind="marginal/direct")},
            ALWAYS | {"energy/power_w", "carbon/intensity_marginal", "carbon/gco2e_marginal"},
        ),
    ],
    ids=["no meter", "no grid", "components", "marginal"],
)
def test_names_of_the_metrics(opened, given, names):
    run, _ = opened(**given)
    advance(run, 6)
    metrics = run.metrics()
    assert set(metrics) == names
    assert {type(value) for value in metrics.values()} == {float}
    assert metrics["carbon/elapsed_hours"] == pytest.approx(1.0)


def test_metrics_are_up_to_this_moment_and_write_nothing(opened, tmp_path):
    run, _ = opened(grid=100.0, pue=2.0)
    before = len(read_records(tmp_path / "run"))
    run.clock.advance("batch")  # ten minutes, of which the ledger does not know yet
    metrics = run.metrics()
    assert metrics["energy/kwh"] == pytest.approx(0.05)
    assert metrics["carbon/gco2e"] == pytest.approx(10.0)
    assert metrics["energy/power_w"] == pytest.approx(300.0)
    assert len(read_records(tmp_path / "run")) == before


def test_state_is_logged_as_a_number(opened):
    run, _ = opened()
    for state, number in (("running", 0.0), ("throttled", 1.0), ("held", 2.0), ("running", 0.0)):
        run.recorder.enter(state=state)
        assert run.metrics()["carbon/state"] == number


def test_marginal_emissions_are_labeled_in_the_summary(opened):
    run, _ = opened(grid=FunctionSignal(lambda at: 100.0, kind="marginal/direct"))
    advance(run, 6)
    summary = run.summary()
    assert summary["carbon/gco2e_marginal"] == pytest.approx(30.0)
    assert "carbon/gco2e" not in summary


def test_power_is_the_mean_since_the_last_reading(opened):
    run, _ = opened()
    metrics = LiveMetrics(run.recorder)
    assert "energy/power_w" not in metrics.read()  # no time has passed
    run.clock.sleep(600)
    assert metrics.read()["energy/power_w"] == pytest.approx(300.0)
    run.meter.set_load(0.5)
    run.clock.sleep(600)
    assert metrics.read()["energy/power_w"] == pytest.approx(150.0)


def test_energy_since_the_last_event_belongs_to_the_current_phase(opened):
    run, _ = opened()
    run.clock.sleep(3600)
    metrics = LiveMetrics(run.recorder).read()
    assert metrics["energy/training_kwh"] == metrics["energy/kwh"] == pytest.approx(0.3)
    assert metrics["energy/validation_kwh"] == 0.0


def test_unknown_intensity_has_no_metric_and_no_total(opened):
    run, _ = opened(grid=FunctionSignal(lambda at: math.nan))
    advance(run, 6)
    assert not [name for name in run.metrics() if name.startswith(("carbon/intensity", "carbon/gco2e"))]
    summary = summarize(run.recorder)
    assert summary["carbon/gco2e"] is None
    assert summary["carbon/saving_pct"] is None
    assert summary["carbon/unpriced_kwh"] == pytest.approx(0.3)


def test_saving_is_relative_to_the_run_now_baseline(opened):
    dirty = 6 * 3600

    def intensity(at):
        return 400.0 if (at - START).total_seconds() < dirty else 100.0

    run, _ = opened(grid=FunctionSignal(intensity))
    run.meter.set_load(0.0)
    run.recorder.enter(state="held", phase="held")
    run.clock.sleep(dirty)
    run.meter.set_load(1.0)
    run.recorder.enter(state="running", phase="training")
    advance(run, 6)
    summary = run.summary()
    assert summary["carbon/gco2e"] == pytest.approx(30.0, rel=0.01)
    assert summary["carbon/counterfactual_gco2e"] == pytest.approx(120.0, rel=0.01)
    assert summary["carbon/saving_pct"] == pytest.approx(75.0, rel=0.01)
    assert summary["carbon/hours_waited"] == pytest.approx(6.0)
    assert "energy/nodes" not in summary
