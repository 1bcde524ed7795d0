"""The RAPL meter on directories like ``/sys/class/powercap``."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_green.energy.auto import AutoMeter
from lightning_green.energy.rapl import RaplMeter
from tests.helpers.powercap import counters, set_counter


def test_sums_packages_and_memory_without_overlap(tmp_path):
    folder = counters(tmp_path / "powercap", start=1_000_000)
    meter = RaplMeter(every="60s", powercap=folder)
    meter.start()
    for zone, microjoules in [
        ("intel-rapl:0", 3_000_000),
        ("intel-rapl:1", 4_000_000),
        ("intel-rapl:0:0", 9_000_000),
        ("intel-rapl:1:1", 1_500_000),
    ]:
        set_counter(folder, zone, microjoules)
    meter.sample()
    assert meter.read() == {"cpu": (5.0, "measured"), "ram": (0.5, "measured")}
    meter.close()


def test_counter_wraps_around_and_bridges_outage(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lightning_green.energy.rapl.time", SimpleNamespace(monotonic=lambda: now[0]))
    folder = counters(tmp_path / "powercap", packages=1, dram=False, start=262_143_000_000)
    meter = RaplMeter(every="60s", powercap=folder)
    meter.start()
    now[0] = 10.0
    set_counter(folder, "intel-rapl:0", 671_150)
    meter.sample()
    assert meter.read()["cpu"] == (pytest.approx(1.0), "measured")
    (folder / "intel-rapl:0" / "energy_uj").write_text("")
    meter.sample()
    assert "cannot be read for now" in meter.problem
    now[0] = 30.0
    set_counter(folder, "intel-rapl:0", 2_671_150)
    meter.close()
    assert meter.read()["cpu"] == (pytest.approx(3.0), "measured")


def test_missing_permission_reports_remedy(tmp_path, monkeypatch):
    folder = counters(tmp_path / "powercap")
    real = Path.read_text

    def read(self, *args, **kwargs):  # the tests may run as root, for whom file modes do not apply
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return real(self, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", read)
    meter = RaplMeter(powercap=folder)
    meter.start()
    assert meter.read() == {"cpu": (0.0, "unavailable")}
    assert meter.remedy == f"sudo chmod o+r {folder}/intel-rapl:*/energy_uj"
    assert meter.remedy in meter.problem
    auto = AutoMeter(powercap=folder)
    auto.start()
    assert meter.remedy in auto.describe()
    assert "cpu modelled (codecarbon)" in auto.describe()  # codespell:ignore modelled
    auto.close()


def test_missing_rapl_is_unavailable_with_reason(tmp_path):
    meter = RaplMeter(powercap=tmp_path / "missing")
    meter.start()
    meter.close()
    assert meter.read() == {"cpu": (0.0, "unavailable")}
    assert "has no RAPL" in meter.problem
