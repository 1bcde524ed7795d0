"""The meter that reads the accounting of SLURM, with programs in the format of ``sstat`` and ``scontrol``.

No plugin for energy accounting runs on a machine without its sensors, so the programs are scripts.
"""

import pytest

from lightning_green.energy.registry import build_meter
from lightning_green.energy.slurm import SlurmMeter


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Install ``sstat`` and ``scontrol``: they print the files of these names, and fail if there is a file ``down``."""
    for name in ("sstat", "scontrol"):
        program = tmp_path / name
        program.write_text(
            f'#!/bin/sh\necho "$@" >> {tmp_path}/{name}.calls\n'
            f"if [ -e {tmp_path}/down ]; then echo 'Connection refused' >&2; exit 1; fi\ncat {tmp_path}/{name}.out\n"
        )
        program.chmod(0o755)
    (tmp_path / "scontrol.out").write_text("AcctGatherEnergyType    = acct_gather_energy/rapl\nKillWait = 30 sec\n")
    (tmp_path / "sstat.out").write_text("1000\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for name in ("SLURM_STEP_ID", "SLURM_STEP_NUM_NODES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    return tmp_path


def measure(site, *readings):
    """Return the meter after these outputs of ``sstat``."""
    meter = SlurmMeter(every="60s")
    (site / "sstat.out").write_text(f"{readings[0]}\n")
    meter.start()
    for reading in readings[1:]:
        (site / "sstat.out").write_text(f"{reading}\n")
        meter.sample()
    return meter


def test_energy_since_the_start_is_measured(site):
    meter = measure(site, 1000, 1500, 4000)
    assert meter.read() == {"other": (3000.0, "measured")}
    assert meter.label("other") == "SLURM, whole node"
    assert "--jobs=7.batch" in (site / "sstat.calls").read_text()
    meter.close()


def test_step_on_several_nodes_counts_the_mean_of_them(site, monkeypatch):
    monkeypatch.setenv("SLURM_STEP_ID", "3")
    monkeypatch.setenv("SLURM_STEP_NUM_NODES", "4")
    meter = measure(site, 1000, 5000)
    assert meter.read() == {"other": (1000.0, "measured")}
    assert meter.label("other") == "SLURM, whole node, mean of 4 nodes"
    assert "--jobs=7.3" in (site / "sstat.calls").read_text()
    meter.close()


def test_failing_sstat_loses_no_energy(site):
    meter = measure(site, 1000, 2000)
    (site / "down").touch()
    meter.sample()
    assert "Connection refused" in meter.problem
    assert meter.read() == {"other": (1000.0, "measured")}
    (site / "down").unlink()
    (site / "sstat.out").write_text("3500\n")
    meter.close()
    assert meter.read() == {"other": (2500.0, "measured")}


@pytest.mark.parametrize("text", ["", "N/A", "18446744073709551614", "-3", "nan", "1000\n1000"])
def test_output_without_an_energy_adds_none(site, text):
    meter = measure(site, text)
    assert meter.read() == {"other": (0.0, "modelled")}
    assert "without an energy" in meter.problem
    meter.close()


@pytest.mark.parametrize("kind", ["acct_gather_energy/none", "(null)", ""])
def test_site_without_a_plugin_has_no_energy(site, kind):
    (site / "scontrol.out").write_text(f"AcctGatherEnergyType    = {kind}\n")
    meter = measure(site, 0)
    assert meter.read() == {"other": (0.0, "unavailable")}
    assert "no plugin" in meter.problem
    assert not (site / "sstat.calls").exists()


def test_process_outside_of_a_job_has_no_energy(site, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID")
    meter = build_meter("slurm")
    meter.start()
    assert meter.read() == {"other": (0.0, "unavailable")}
    assert "not part of a SLURM job" in meter.problem


def test_missing_programs_are_reported(site, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    meter = SlurmMeter()
    meter.start()
    assert "sstat did not answer" in meter.problem
    meter.close()
