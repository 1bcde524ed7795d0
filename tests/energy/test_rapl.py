"""The RAPL meter on directories like ``/sys/class/powercap``."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from lightning_green.energy.auto import AutoMeter
from lightning_green.energy.rapl import RaplMeter
from tests.helpers.powercap import counters, set_counter


def test_sums_packages_and_memory_without_overlap(tmp_path):
    folder = counters(tmp_path / "powercap", start=1_000_000)
    meter = RaplMeter(every="60s", powercap=folder, share="node")
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
    meter = RaplMeter(every="60s", powercap=folder, share="node")
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
    assert "cpu modelled (codecarbon, share of the job)" in auto.describe()  # codespell:ignore modelled
    auto.close()


def test_missing_rapl_is_unavailable_with_reason(tmp_path):
    meter = RaplMeter(powercap=tmp_path / "missing")
    meter.start()
    meter.close()
    assert meter.read() == {"cpu": (0.0, "unavailable")}
    assert "has no RAPL" in meter.problem


def zones(folder, names):
    """Create zones with the given names."""
    for path, name in names.items():
        (folder / path).mkdir(parents=True)
        (folder / path / "name").write_text(name + "\n")
        (folder / path / "max_energy_range_uj").write_text("262143328850\n")
        set_counter(folder, path, 0)
    return folder


def joules_of(folder, values):
    """Return the energy of a meter while the counters reach the given values in J."""
    meter = RaplMeter(every="60s", powercap=folder, share="node")
    meter.start()
    for path, joules in values.items():
        set_counter(folder, path, joules * 1_000_000)
    meter.sample()
    meter.close()
    return {name: energy.joules for name, energy in meter.read().items()}


BOTH = {"intel-rapl:0": 100, "intel-rapl:1": 100}
DIES = {"intel-rapl:0": "package-0-die-0", "intel-rapl:1": "package-0-die-1"}


@pytest.mark.parametrize(
    ("names", "values", "expected"),
    [
        (DIES, BOTH, {"cpu": 100.0}),
        (DIES, {"intel-rapl:0": 100, "intel-rapl:1": 70}, {"cpu": 170.0}),
        ({"intel-rapl:0": "package-0", "intel-rapl:1": "package-0"}, BOTH, {"cpu": 100.0}),
        ({"intel-rapl:0": "package-0", "intel-rapl:1": "package-1"}, BOTH, {"cpu": 200.0}),
        (
            {**DIES, "intel-rapl:0:0": "dram", "intel-rapl:1:0": "dram"},
            {"intel-rapl:0": 50, "intel-rapl:1": 60, "intel-rapl:0:0": 20, "intel-rapl:1:0": 20},
            {"cpu": 110.0, "ram": 20.0},
        ),
    ],
    ids=["mirrored dies", "separate dies", "same zone twice", "two packages", "mirrored memory"],
)  # fmt: skip
def test_each_energy_is_counted_once(tmp_path, names, values, expected):
    assert joules_of(zones(tmp_path / "powercap", names), values) == expected


def test_counter_that_stands_still_is_unavailable_until_it_changes(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lightning_green.energy.rapl.time", SimpleNamespace(monotonic=lambda: now[0]))
    folder = counters(tmp_path / "powercap", packages=1, dram=False)
    meter = RaplMeter(every="60s", powercap=folder, share="node")
    meter.start()
    now[0] = 31.0
    meter.sample()
    assert meter.read()["cpu"] == (0.0, "unavailable")
    assert "has not changed for 31 s" in meter.problem
    now[0] = 40.0
    set_counter(folder, "intel-rapl:0", 5_000_000)
    meter.sample()
    assert meter.read()["cpu"] == (5.0, "measured")
    meter.close()


def test_jump_of_the_counter_is_unavailable(tmp_path):
    folder = counters(tmp_path / "powercap", packages=1, dram=False)
    meter = RaplMeter(every="60s", powercap=folder, share="node")
    meter.start()
    set_counter(folder, "intel-rapl:0", 260_000_000_000)
    meter.sample()
    assert meter.read()["cpu"] == (0.0, "unavailable")
    assert "has jumped by 2.6e+05 J" in meter.problem
    meter.close()


def test_job_has_a_share_of_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_green.energy.cpu_share.EnergyShare.cpu", lambda self: 0.25)
    folder = counters(tmp_path / "powercap", packages=1, dram=False)
    meter = RaplMeter(every="60s", powercap=folder)
    meter.start()
    set_counter(folder, "intel-rapl:0", 100_000_000)
    meter.sample()
    assert meter.read() == {"cpu": (25.0, "modelled")}
    assert meter.describe() == "RAPL (cpu modelled; share, modelled from measured package energy)"
    meter.close()
