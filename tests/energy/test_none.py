"""The meter that measures nothing."""

from lightning_green.energy.none import NoMeter


def test_reads_nothing():
    meter = NoMeter()
    meter.start()
    assert meter.read() == {}
    meter.close()
