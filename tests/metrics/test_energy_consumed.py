"""Energy of all nodes."""

from lightning_green.metrics import EnergyConsumed


def test_joule_is_not_lost_in_large_total():
    metric = EnergyConsumed()
    metric.update(3.6e12)
    metric.update(1.0)
    assert float(metric.joules) == 3.6e12 + 1.0
    metric.reset()
    assert float(metric.compute()) == 0.0
