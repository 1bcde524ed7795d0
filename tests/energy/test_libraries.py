"""The real codecarbon and carbontracker, each in a process of its own: what they do to a process shows there."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# a connection, a packet or a look-up of a name fails loudly (importing urllib3 binds a socket to ::1, which is no harm)
GUARD = """
import json, signal, socket, sys, threading, time
opened = []
def refuse(*args, **kwargs):
    opened.append(str(args))
    raise RuntimeError("the network was used")
class Refuse(socket.socket):
    connect = connect_ex = sendto = sendmsg = refuse
socket.socket = Refuse
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
def state(**more):
    same = all(signal.getsignal(number) == handler for number, handler in handlers.items())
    sys.stderr.write("RESULT" + json.dumps({"opened": opened, "handlers": same, **more}))
def joules(meter):
    return {name: [energy.joules, energy.quality] for name, energy in meter.read().items()}
"""


def run(tmp_path, body, **environment):
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir(exist_ok=True)
    for key, value in list(environment.items()):
        if value is None:
            environment.pop(key)
    base = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", GUARD + textwrap.dedent(body)],
        cwd=work,
        env={**base, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(work.iterdir()) == [], "a file was left in the working directory"
    assert done.stdout == ""
    noise, _, result = done.stderr.rpartition("RESULT")
    assert noise == "", "something was printed"
    found = json.loads(result)
    assert found["opened"] == []
    assert found["handlers"]
    return found


def test_codecarbon_counts_and_leaves_the_process_alone(tmp_path):
    found = run(
        tmp_path,
        """
        import pickle
        from lightning_green.energy.codecarbon import CodeCarbonMeter
        meter = CodeCarbonMeter(every="0.2s")
        meter.start(); meter.start()
        first = joules(meter)
        readings = []
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            readings.append(joules(meter)); time.sleep(0.05)
        before = time.perf_counter(); meter.read(); read_us = (time.perf_counter() - before) * 1e6
        meter.sample()
        sampled = joules(meter)
        described = meter.describe()
        copy = pickle.loads(pickle.dumps(meter))
        meter.close(); meter.close()
        last = joules(meter)
        time.sleep(0.2)
        alive = [thread.name for thread in threading.enumerate()]
        meter.start()  # a closed meter stays closed
        state(first=first, readings=readings, sampled=sampled, last=last, described=described, alive=alive,
              problem=meter.problem, copy=copy.read(), read_us=read_us)
        """,
        # what a user's own codecarbon settings may hold must neither send nor write anything
        CODECARBON_EMISSIONS_ENDPOINT="http://127.0.0.1:9/",
        CODECARBON_OUTPUT_METHODS="csv,api",
        CODECARBON_CO2_SIGNAL_API_TOKEN="secret",
        CODECARBON_ALLOW_MULTIPLE_RUNS="false",
        CODECARBON_PUE="2.0",
        CODECARBON_FORCE_CPU_POWER="100",
        CODECARBON_FORCE_RAM_POWER="20",
    )
    assert found["problem"] is None
    assert {"cpu", "ram"} <= set(found["last"])
    assert found["last"]["ram"][1] == found["last"]["cpu"][1] == "modelled"
    assert "ram modelled" in found["described"]
    # 20 W of RAM as stated, PUE undone: 0.8 s and a little more
    assert 16 <= found["last"]["ram"][0] <= 60
    values = [found["first"]["ram"][0], *(reading["ram"][0] for reading in found["readings"])]
    assert values == sorted(values)
    assert len(set(values)) >= 3
    assert values[-1] <= found["sampled"]["ram"][0] <= found["last"]["ram"][0]
    assert found["alive"] == ["MainThread"]
    assert found["copy"] == {}
    assert found["read_us"] < 1000


def test_codecarbon_that_cannot_start_is_unavailable_and_says_so(tmp_path):
    found = run(
        tmp_path,
        """
        from codecarbon.core import resource_tracker
        def broken(self):
            raise OSError("no hardware to be found")
        resource_tracker.ResourceTracker.set_CPU_GPU_ram_tracking = broken
        from lightning_green.energy.codecarbon import CodeCarbonMeter
        import logging; logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
        meter = CodeCarbonMeter()
        meter.start(); meter.sample()
        before = joules(meter)
        meter.close()
        state(before=before, after=joules(meter), problem=meter.problem)
        """,
        CODECARBON_LOG_LEVEL="critical",
    )
    assert found["before"] == found["after"]
    assert {quality for _, quality in found["after"].values()} == {"unavailable"}
    assert "codecarbon could not start" in found["problem"]


def test_codecarbon_that_stops_to_answer_keeps_its_last_value(tmp_path):
    found = run(
        tmp_path,
        """
        from lightning_green.energy.codecarbon import CodeCarbonMeter
        meter = CodeCarbonMeter(every="60s")
        meter.start()
        time.sleep(0.1); meter.sample()
        good = joules(meter)
        for hardware in meter._tracker._hardware:
            hardware.measure_power_and_energy = lambda last_duration: 1 / 0
        time.sleep(0.1); meter.sample()
        bad = joules(meter)
        problem = meter.problem
        meter.close()
        state(good=good, bad=bad, problem=problem)
        """,
    )
    assert found["good"] == found["bad"]
    assert "could not take a sample" in found["problem"]


def test_carbontracker_integrates_power_without_its_pue(tmp_path):
    found = run(
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


def test_carbontracker_without_a_device_does_not_end_the_process(tmp_path):
    found = run(
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


def test_carbontracker_whose_sensor_fails_keeps_its_last_value(tmp_path):
    found = run(
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


def test_real_cpu_of_carbontracker_prints_nothing(tmp_path):
    found = run(
        tmp_path,
        """
        from lightning_green.energy.carbontracker import CarbonTrackerMeter
        meter = CarbonTrackerMeter(every="0.1s", components="cpu")
        meter.start(); time.sleep(0.3); meter.close()
        state(values=joules(meter), problem=meter.problem)
        """,
    )
    assert set(found["values"]) == {"cpu"}


@pytest.mark.parametrize(
    ("visible", "asked", "expected"),
    [
        (None, None, None),
        ("0,2", None, None),  # codecarbon reads the variable itself
        ("", None, ["no-gpu-of-this-job"]),
        ("-1", None, ["no-gpu-of-this-job"]),
        ("0,1,2", ["GPU-aa"], ["GPU-aa"]),
        ("0", [], ["no-gpu-of-this-job"]),
    ],
)
def test_gpus_of_this_job_alone(monkeypatch, visible, asked, expected):
    from lightning_green.energy.codecarbon import _gpus_to_count

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _gpus_to_count(asked) == expected


def test_the_attributes_of_codecarbon_that_are_not_public_still_exist():
    from codecarbon.core.resource_tracker import CPU, GPU
    from codecarbon.emissions_tracker import BaseEmissionsTracker
    from codecarbon.external.hardware import GPU as Devices

    assert CPU.__name__ == "CPU"
    assert GPU is Devices
    assert hasattr(Devices, "_get_gpu_ids")
    assert "_hardware" in BaseEmissionsTracker._initialize_runtime_state.__code__.co_names


@pytest.mark.parametrize("options", [{"every": "1"}, {"every": "0.01s"}])
def test_wrong_arguments(options):
    from lightning_green.energy.carbontracker import CarbonTrackerMeter
    from lightning_green.energy.codecarbon import CodeCarbonMeter

    for meter in (CodeCarbonMeter, CarbonTrackerMeter):
        with pytest.raises(ValueError, match="`every` should be"):
            meter(**options)
    with pytest.raises(ValueError, match="`components` should be"):
        CarbonTrackerMeter(components="tpu")
    with pytest.raises(ValueError, match="`sim_gpu_watts` should be"):
        CarbonTrackerMeter(sim_gpu="A")
