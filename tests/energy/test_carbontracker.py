"""The real carbontracker, in a process of its own to detect its side effects."""

import pytest

from lightning_green.energy.carbontracker import CarbonTrackerMeter
from tests.helpers.guarded_process import run_guarded


def test_integrates_power_without_pue(tmp_path):
    found = run_guarded(
        tmp_path,
        """
        from lightning_green.energy.carbontracker import CarbonTrackerMeter
        meter = CarbonTrackerMeter(every="0.1s", sim_gpu="A", sim_gpu_watts=300.0, sim_gpu_util=1.0,
                                   sim_cpu="B", sim_cpu_tdp=100.0, sim_cpu_util=0.5)
        meter.start(); begin = time.monotonic()
        time.sleep(1.0)
        middle = joules(meter)
        meter.close(); seconds = time.monotonic() - begin
        alive = [thread.name for thread in threading.enumerate()]
        state(middle=middle, last=joules(meter), seconds=seconds, problem=meter.problem, alive=alive,
              described=meter.describe())
        """,
    )
    joules, quality = found["last"]["gpu"]
    assert quality == "modelled"  # simulated
    assert joules == pytest.approx(300.0 * found["seconds"], rel=0.1)
    assert found["last"]["cpu"][0] == pytest.approx(joules / 6, rel=0.01)
    assert 0 < found["middle"]["gpu"][0] <= joules
    assert found["alive"] == ["MainThread"]
    assert found["problem"] is None


def test_missing_device_does_not_end_process(tmp_path):
    found = run_guarded(
        tmp_path,
        """
        from lightning_green.energy.carbontracker import CarbonTrackerMeter
        from carbontracker.components.gpu import nvidia
        nvidia.NvidiaGPU.available = lambda self: False
        meter = CarbonTrackerMeter(components="gpu")
        meter.start(); meter.sample(); meter.close()
        state(values=joules(meter), problem=meter.problem)
        """,
    )
    assert found["values"] == {"gpu": [0.0, "unavailable"]}
    assert "no device that it can read" in found["problem"]


def test_failed_sensor_keeps_last_value(tmp_path):
    found = run_guarded(
        tmp_path,
        """
        from lightning_green.energy.carbontracker import CarbonTrackerMeter
        from carbontracker.components.gpu.sim_gpu import SimulatedGPUHandler
        from carbontracker import exceptions
        meter = CarbonTrackerMeter(every="60s", components="gpu", sim_gpu="A", sim_gpu_watts=300.0, sim_gpu_util=1.0)
        meter.start(); time.sleep(0.1); meter.sample()
        good = joules(meter)
        def broken(self):
            raise exceptions.GPUPowerUsageRetrievalError()
        SimulatedGPUHandler.power_usage = broken
        time.sleep(0.1); meter.sample(); meter.close()
        state(good=good, bad=joules(meter), problem=meter.problem)
        """,
    )
    assert found["good"] == found["bad"]
    assert found["good"]["gpu"][0] > 0
    assert "cannot read the gpu" in found["problem"]


def test_real_cpu_prints_nothing(tmp_path):
    found = run_guarded(
        tmp_path,
        """
        from lightning_green.energy.carbontracker import CarbonTrackerMeter
        meter = CarbonTrackerMeter(every="0.1s", components="cpu")
        meter.start(); time.sleep(0.3); meter.close()
        state(values=joules(meter), problem=meter.problem)
        """,
    )
    assert set(found["values"]) == {"cpu"}


@pytest.mark.parametrize("options", [{"every": "1"}, {"every": "0.01s"}])
def test_invalid_interval_raises(options):
    with pytest.raises(ValueError, match="`every` should be"):
        CarbonTrackerMeter(**options)


def test_invalid_components_raise():
    with pytest.raises(ValueError, match="`components` should be"):
        CarbonTrackerMeter(components="tpu")
    with pytest.raises(ValueError, match="`sim_gpu_watts` should be"):
        CarbonTrackerMeter(sim_gpu="A")
