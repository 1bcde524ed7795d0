"""The real codecarbon, in a process of its own to detect its side effects."""

import os

import pytest

from lightning_green.energy.codecarbon import CodeCarbonMeter, _gpus_to_count
from tests.helpers.guarded_process import run_guarded

START_AND_SAMPLE = """
from lightning_green.energy.codecarbon import CodeCarbonMeter
begin = time.monotonic()
meter = CodeCarbonMeter(every="60s", share="node")
meter.start(); time.sleep(0.2); meter.sample(); meter.close()
state(values=joules(meter), problem=meter.problem, seconds=time.monotonic() - begin)
"""


def test_counts_energy_without_side_effects(tmp_path):
    found = run_guarded(
        tmp_path,
        """
        import pickle
        from lightning_green.energy.codecarbon import CodeCarbonMeter
        meter = CodeCarbonMeter(every="0.2s", share="node")
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
        # The user's own codecarbon settings must neither send nor write anything.
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
    # 20 W of RAM as configured, without the PUE, for 0.8 s and a little longer.
    assert 16 <= found["last"]["ram"][0] <= 60
    values = [found["first"]["ram"][0], *(reading["ram"][0] for reading in found["readings"])]
    assert values == sorted(values)
    assert len(set(values)) >= 3
    assert values[-1] <= found["sampled"]["ram"][0] <= found["last"]["ram"][0]
    assert found["alive"] == ["MainThread"]
    assert found["copy"] == {}
    assert found["read_us"] < 1000


def test_failed_start_is_unavailable_with_reason(tmp_path):
    found = run_guarded(
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


def test_failed_sample_keeps_last_value(tmp_path):
    found = run_guarded(
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


@pytest.mark.parametrize(
    ("visible", "asked", "expected"),
    [
        (None, None, None),
        ("0,2", None, None),  # codecarbon reads the variable itself
        ("", None, ["no-gpu-of-this-job"]),
        ("-1", None, ["no-gpu-of-this-job"]),
        ("-1,0", None, ["no-gpu-of-this-job"]),
        ("0,1,2", ["GPU-aa"], ["GPU-aa"]),
        ("0", [], ["no-gpu-of-this-job"]),
    ],
)
def test_gpus_of_job_are_passed_to_codecarbon(monkeypatch, visible, asked, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert _gpus_to_count(asked) == expected


def test_private_attributes_of_codecarbon_exist():
    from codecarbon.core.resource_tracker import CPU, GPU
    from codecarbon.emissions_tracker import BaseEmissionsTracker
    from codecarbon.external.hardware import GPU as Devices

    assert CPU.__name__ == "CPU"
    assert GPU is Devices
    assert hasattr(Devices, "_get_gpu_ids")
    assert "_hardware" in BaseEmissionsTracker._initialize_runtime_state.__code__.co_names


@pytest.mark.parametrize("options", [{"every": "1"}, {"every": "0.01s"}])
def test_invalid_interval_raises(options):
    with pytest.raises(ValueError, match="`every` should be"):
        CodeCarbonMeter(**options)


@pytest.mark.parametrize(
    ("config", "environment"),
    [
        ("this is no ini file\n", {}),
        ("[codecarbon]\npue=1.5\npue=2\n", {}),
        ("[codecarbon]\noutput_dir = /nonexistent\n", {}),
        (None, {"CODECARBON_OUTPUT_DIR": "/nonexistent", "CODECARBON_TRACKING_MODE": "nonsense"}),
        (None, {"CODECARBON_FORCE_CPU_POWER": "many", "CODECARBON_SAVE_TO_PROMETHEUS": "true"}),
    ],
    ids=["no sections", "duplicate option", "output directory", "variables", "values"],
)
def test_configuration_of_codecarbon_does_not_switch_energy_off(tmp_path, config, environment):
    (tmp_path / "home").mkdir()
    if config is not None:
        (tmp_path / "home" / ".codecarbon.config").write_text(config)
    found = run_guarded(tmp_path, START_AND_SAMPLE, **environment)
    assert {quality for _, quality in found["values"].values()} == {"modelled"}
    assert all(joules > 0 for joules, _ in found["values"].values())


@pytest.mark.parametrize("script", [None, "#!/bin/sh\nexec sleep 60\n"], ids=["missing", "hangs"])
def test_scontrol_is_not_needed_in_a_slurm_job(tmp_path, script):
    if script is not None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "scontrol").write_text(script)
        (tmp_path / "bin" / "scontrol").chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    found = run_guarded(tmp_path, START_AND_SAMPLE, SLURM_JOB_ID="123", PATH=path)
    assert {quality for _, quality in found["values"].values()} == {"modelled"}
    assert found["seconds"] < 50
