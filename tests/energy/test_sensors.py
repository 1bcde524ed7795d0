"""NVML, RAPL, wall meters and their composition: the real code in front of a driver, a tree and a server of our own."""

import json
import pickle
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_green.energy.auto import AutoMeter
from lightning_green.energy.counter import EnergyCounter, PowerIntegral
from lightning_green.energy.gpus import job_gpus
from lightning_green.energy.http_json import HttpJsonMeter
from lightning_green.energy.nvml import NvmlMeter
from lightning_green.energy.prometheus import PrometheusMeter
from lightning_green.energy.rapl import RaplMeter

from .fake_nvml import LOST, Card, FakeDriver


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    return FakeDriver([Card("GPU-aa11"), Card("GPU-ab22"), Card("GPU-cc33")]).install(monkeypatch)


def tree(folder, packages=2, dram=True, start=0, wraps_at=262_143_328_850):
    for number in range(packages):
        for name, kind in [("", f"package-{number}"), (":0", "core"), (":1", "dram")]:
            if name == ":1" and not dram:
                continue
            zone = folder / f"intel-rapl:{number}{name}"
            zone.mkdir(parents=True)
            (zone / "name").write_text(kind + "\n")
            (zone / "energy_uj").write_text(f"{start}\n")
            (zone / "max_energy_range_uj").write_text(f"{wraps_at}\n")
    (folder / "intel-rapl-mmio:0").mkdir()
    (folder / "intel-rapl-mmio:0" / "name").write_text("package-0\n")
    (folder / "intel-rapl:9").mkdir()
    (folder / "intel-rapl:9" / "name").write_text("psys\n")
    return folder


def put(folder, zone, microjoules):
    (folder / zone / "energy_uj").write_text(f"{microjoules}\n")


# -- counters ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0.0, 900.0), min_size=2, max_size=60), st.floats(0.0, 999.0))
def test_a_counter_that_wraps_loses_nothing(steps, start):
    counter, shown, true, found = EnergyCounter(most_watts=950.0, range_joules=1000.0), start, 0.0, 0.0
    counter.add(0.0, start)
    for at, joules in enumerate(steps, 1):
        true, shown = true + joules, (shown + joules) % 1000.0
        added = counter.add(float(at), shown)
        assert not added.guessed
        found += added.joules
    assert found == pytest.approx(true, abs=1e-6)


def test_rounds_of_a_long_gap_are_counted_by_the_power_before_and_said_to_be_guessed():
    counter = EnergyCounter(most_watts=500.0, range_joules=1000.0)
    counter.add(0.0, 0.0)
    counter.add(1.0, 100.0)
    added = counter.add(36.0, 600.0)  # 35 s at 100 W: 3500 J, three times round
    assert added == (3500.0, True)


def test_a_counter_that_falls_without_a_range_was_reset():
    counter = EnergyCounter(most_watts=500.0)
    counter.add(0.0, 5000.0)
    assert counter.add(10.0, 6000.0) == (1000.0, False)
    assert counter.add(20.0, 30.0) == (1000.0, True)
    assert counter.add(30.0, 1030.0) == (1000.0, False)


def test_a_fall_that_no_wrap_explains_was_a_reset():
    counter = EnergyCounter(most_watts=500.0, range_joules=1e6)
    counter.add(0.0, 2000.0)
    counter.add(1.0, 2100.0)
    assert counter.add(2.0, 50.0) == (100.0, True)


def test_power_is_integrated_and_a_gap_is_said():
    integral = PowerIntegral(longest_gap=5.0)
    assert integral.add(0.0, 100.0) == (0.0, False)
    assert integral.add(2.0, 300.0) == (400.0, False)
    assert integral.add(12.0, 100.0) == (2000.0, True)


# -- NVML --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("2,0", [2, 0]),
        ("0,-1,2", [0]),
        ("0,9,2", [0]),
        ("GPU-cc33,GPU-aa11", [2, 0]),
        ("GPU-c", [2]),
        ("GPU-a", []),  # fits two
        ("nonsense", []),
    ],
)
def test_devices_as_cuda_picks_them(driver, monkeypatch, visible, expected):
    import pynvml

    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    gpus, _ = job_gpus(pynvml)
    assert [gpu.index for gpu in gpus] == expected


def test_an_index_among_different_cards_is_said_to_be_unsure(driver, monkeypatch):
    import pynvml

    driver.cards[1].model = "NVIDIA L4"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert "name them by UUID" in job_gpus(pynvml)[1][0]
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert job_gpus(pynvml)[1] == []


@pytest.mark.parametrize(
    ("visible", "share"),
    [("MIG-7", 3 / 7), ("MIG-GPU-aa11/2/0", 2 / 7), ("0", 3 / 7), ("MIG-7,MIG-8", 5 / 7), ("GPU-aa11", 3 / 7)],
)
def test_a_mig_instance_is_charged_its_share(driver, monkeypatch, visible, share):
    driver.cards[0].mig = [("MIG-7", 1, 0, 3), ("MIG-8", 2, 0, 2)]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    meter = NvmlMeter(every="60s")
    meter.start()
    driver.cards[0].millijoules += 700
    driver.cards[1].millijoules += 10_000
    meter.sample()
    assert meter.read()["gpu"] == (pytest.approx(0.7 * share), "modelled")
    meter.close()


def test_nvml_counts_the_jobs_own_cards_over_an_outage(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-ab22,0")
    meter = NvmlMeter(every="60s")
    meter.start()
    assert meter.read()["gpu"] == (0.0, "measured")
    for card, joules in zip(driver.cards, (10, 20, 40), strict=True):
        card.millijoules += joules * 1000
    meter.sample()
    assert meter.read()["gpu"].joules == 30.0
    driver.cards[0].fault = LOST
    for card in driver.cards:
        card.millijoules += 1000
    meter.sample()
    assert meter.read()["gpu"].joules == 31.0
    assert "GPU 0 cannot be read for now" in meter.problem
    driver.cards[0].fault = 0
    meter.close()  # what was not seen during the outage was counted by the card
    assert meter.read()["gpu"] == (32.0, "measured")
    assert driver.open == 0
    assert meter.describe() == "NVML (measured)"


def test_a_card_without_a_counter_is_integrated(driver, monkeypatch):
    clock = iter(range(0, 100, 10))
    monkeypatch.setattr("lightning_green.energy.nvml.time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    driver.cards[1:] = []
    driver.cards[0].has_counter = False
    meter = NvmlMeter(every="60s")
    meter.start()
    driver.cards[0].milliwatts = 100_000
    meter.sample()
    meter.close()
    assert meter.read()["gpu"] == (10 * 200.0 + 10 * 100.0, "measured")


def test_a_driver_that_was_reloaded_is_no_jump_and_says_so(driver):
    driver.cards[1:] = []
    meter = NvmlMeter(every="60s")
    meter.start()
    driver.cards[0].millijoules = 5
    meter.sample()
    assert meter.read()["gpu"].quality == "modelled"
    assert meter.read()["gpu"].joules < 1.0
    meter.close()
    assert "reset" in meter.problem


def test_without_a_driver_there_is_none_and_a_reason():
    meter = NvmlMeter()
    meter.start()
    assert meter.read() == {"gpu": (0.0, "unavailable")}
    assert "NVML says" in meter.problem
    meter.sample()
    meter.close()


def test_a_copy_of_a_meter_starts_afresh(driver):
    meter = NvmlMeter(every="60s")
    meter.start()
    copy = pickle.loads(pickle.dumps(meter))
    assert copy.read() == {}
    assert copy.every == meter.every
    meter.close()


# -- RAPL --------------------------------------------------------------------------------------------------------------


def test_rapl_adds_packages_and_memory_and_nothing_twice(tmp_path):
    folder = tree(tmp_path / "powercap", start=1_000_000)
    meter = RaplMeter(every="60s", powercap=folder)
    meter.start()
    for zone, microjoules in [
        ("intel-rapl:0", 3_000_000),
        ("intel-rapl:1", 4_000_000),
        ("intel-rapl:0:0", 9_000_000),
        ("intel-rapl:1:1", 1_500_000),
    ]:
        put(folder, zone, microjoules)
    meter.sample()
    assert meter.read() == {"cpu": (5.0, "measured"), "ram": (0.5, "measured")}
    meter.close()


def test_rapl_wraps_around_and_survives_an_outage(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lightning_green.energy.rapl.time", SimpleNamespace(monotonic=lambda: now[0]))
    folder = tree(tmp_path / "powercap", packages=1, dram=False, start=262_143_000_000)
    meter = RaplMeter(every="60s", powercap=folder)
    meter.start()
    now[0] = 10.0
    put(folder, "intel-rapl:0", 671_150)
    meter.sample()
    assert meter.read()["cpu"] == (pytest.approx(1.0), "measured")
    (folder / "intel-rapl:0" / "energy_uj").write_text("")
    meter.sample()
    assert "cannot be read for now" in meter.problem
    now[0] = 30.0
    put(folder, "intel-rapl:0", 2_671_150)
    meter.close()
    assert meter.read()["cpu"] == (pytest.approx(3.0), "measured")


def test_rapl_for_root_alone_says_how_to_open_it(tmp_path, monkeypatch):
    from pathlib import Path

    folder = tree(tmp_path / "powercap")
    real = Path.read_text

    def read(self, *args, **kwargs):  # the tests may run as root, whom no file mode stops
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
    assert "cpu modelled (codecarbon)" in auto.describe()
    auto.close()


def test_no_rapl_at_all(tmp_path):
    meter = RaplMeter(powercap=tmp_path / "missing")
    meter.start()
    meter.close()
    assert meter.read() == {"cpu": (0.0, "unavailable")}
    assert "has no RAPL" in meter.problem


# -- from outside ------------------------------------------------------------------------------------------------------


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.seen.append((self.path, self.headers.get("Authorization")))
        status, body = self.server.answer
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "LIGHTNING_GREEN_METER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    served = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    served.seen, served.answer = [], (200, {})
    served.url = f"http://127.0.0.1:{served.server_port}"
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


def test_a_counter_behind_http(server, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_METER_TOKEN", "s3cret")
    server.answer = (200, {"data": [{"kwh": "1.5"}]})
    meter = HttpJsonMeter(server.url, "data.0.kwh", unit="kWh", every="60s")
    meter.start()
    server.answer = (503, {})
    meter.sample()
    assert "does not answer" in meter.problem
    server.answer = (200, {"data": [{"kwh": 1.75}]})
    meter.close()
    assert meter.read() == {"other": (0.25 * 3.6e6, "measured")}
    assert {authorization for _, authorization in server.seen} == {"Bearer s3cret"}
    assert "s3cret" not in str(meter.problem) + repr(meter.__dict__)


def test_power_behind_prometheus(server, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("lightning_green.energy.wall.time", SimpleNamespace(monotonic=lambda: now[0]))
    result = [{"metric": {}, "value": [1.0, "100"]}]
    body = {"status": "success", "data": {"resultType": "vector", "result": result}}
    server.answer = (200, body)
    meter = PrometheusMeter(server.url, "node_power", every="10s")
    meter.start()
    now[0] = 10.0
    meter.sample()
    assert meter.read() == {"other": (1000.0, "measured")}
    server.answer = (200, {"status": "success", "data": {"resultType": "vector", "result": result * 2}})
    meter.sample()
    assert "2 series" in meter.problem
    server.answer = (200, body)
    now[0] = 80.0
    meter.close()  # more than a minute of silence, filled in
    assert meter.read() == {"other": (8000.0, "modelled")}
    assert server.seen[0][0] == "/api/v1/query?query=node_power"


@pytest.mark.parametrize("body", [{}, {"power": None}, {"power": True}, {"power": "x"}, {"power": -1}, [], 3])
def test_an_answer_without_a_number_is_no_energy(server, body):
    server.answer = (200, body)
    meter = HttpJsonMeter(server.url, "power", every="60s")
    meter.start()
    meter.close()
    assert meter.read() == {"other": (0.0, "modelled")}
    assert "without a number" in meter.problem


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"url": "ftp://x"}, "url"),
        ({"url": "http://a:b@x"}, "url"),
        ({"unit": "BTU"}, "unit"),
        ({"component": "fan"}, "component"),
        ({"value": ""}, "value"),
        ({"every": "0s"}, "every"),
    ],
)
def test_wrong_arguments(arguments, named):
    with pytest.raises(ValueError, match=f"`{named}` should"):
        HttpJsonMeter(**{"url": "http://x", "value": "power", **arguments})


# -- together ----------------------------------------------------------------------------------------------------------


def test_auto_takes_the_best_of_each(driver, tmp_path):
    folder = tree(tmp_path / "powercap")
    meter = AutoMeter(every="60s", powercap=folder)
    meter.start()
    driver.cards[1].millijoules += 5000
    put(folder, "intel-rapl:0", 2_000_000)
    meter.sample()
    assert meter.read() == {"gpu": (5.0, "measured"), "cpu": (2.0, "measured"), "ram": (0.0, "measured")}
    assert meter.describe() == "auto: cpu measured (RAPL), gpu measured (NVML), ram measured (RAPL)"
    assert meter.problem is None
    meter.close()
    assert driver.open == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightning-green")]


def test_auto_without_any_sensor_models_and_says_so(tmp_path):
    meter = AutoMeter(every="60s", powercap=tmp_path)
    meter.start()
    meter.close()
    assert {name: energy.quality for name, energy in meter.read().items()} == {"cpu": "modelled", "ram": "modelled"}
