"""Selection of the best source of each component."""

import threading

from lightning_green.energy.auto import AutoMeter
from tests.helpers.powercap import counters, set_counter


def test_uses_best_source_of_each_component(driver, tmp_path):
    folder = counters(tmp_path / "powercap")
    meter = AutoMeter(every="60s", powercap=folder, share="node")
    meter.start()
    driver.cards[1].millijoules += 5000
    set_counter(folder, "intel-rapl:0", 2_000_000)
    meter.sample()
    assert meter.read() == {"gpu": (5.0, "measured"), "cpu": (2.0, "measured"), "ram": (0.0, "measured")}
    assert meter.describe() == "auto: cpu measured (RAPL), gpu measured (NVML), ram measured (RAPL)"
    assert meter.problem is None
    meter.close()
    assert driver.open == 0
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lightning-green")]


def test_models_cpu_and_ram_without_sensor(tmp_path):
    meter = AutoMeter(every="60s", powercap=tmp_path)
    meter.start()
    meter.close()
    assert {name: energy.quality for name, energy in meter.read().items()} == {"cpu": "modelled", "ram": "modelled"}
