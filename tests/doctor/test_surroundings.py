"""Sources of carbon intensity, launchers, the disk and packages."""

import re
import shutil
import threading
from collections import namedtuple
from datetime import datetime, timezone
from pathlib import Path

import pytest

from lightning_green.doctor import disk, packages
from lightning_green.doctor.disk import examine_disk
from lightning_green.doctor.launchers import examine_launchers
from lightning_green.doctor.packages import EXTRAS, examine_packages, examine_versions
from lightning_green.doctor.sources import examine_grid
from lightning_green.doctor.torch_build import cuda_of_torch
from lightning_green.grid import build_grid
from lightning_green.supervisor.launchers import kubernetes_api
from tests.helpers.fake_grid import FakeGrid
from tests.helpers.kubernetes_fixtures import certificates, cluster
from tests.helpers.live_signals import PROVIDERS, service_environment

__all__ = ["certificates", "cluster", "service_environment"]
ROOT = Path(__file__).parents[2]


def levels(findings):
    return {one.name: one.level for one in findings}


def test_source_with_current_values(service_environment):
    with FakeGrid(datetime.now(timezone.utc)) as server:
        found = list(examine_grid(PROVIDERS["charts"](server)))
    assert levels(found) == {"intensity": "ok", "energy-charts": "ok"}
    assert "gCO2e/kWh" in found[1].text


def test_source_with_a_long_run_mean_is_limited():
    intensity, source = examine_grid(build_grid("typical:DE"))
    assert (intensity.level, source.level) == ("ok", "limited")
    assert "--grid" in source.remedy


def test_failing_source(service_environment):
    with FakeGrid(datetime.now(timezone.utc)) as server:
        server.faults = {None: "404"}
        intensity, source = examine_grid(PROVIDERS["charts"](server))
    assert (intensity.level, intensity.is_required, source.level) == ("no", True, "no")
    assert "typical:ZONE" in intensity.remedy


def test_source_that_does_not_answer_is_given_up(monkeypatch):
    released = threading.Event()
    monkeypatch.setattr("lightning_green.doctor.sources.check", lambda signal, now: released.wait(60))
    intensity, source = examine_grid(build_grid("typical:DE"), limit=0.05)
    released.set()
    assert intensity.level == "no"
    assert "network may be unreachable" in intensity.text
    assert source.text == "no answer within 0.05 s"


def test_without_a_zone_the_remedy_names_the_variable():
    found = {one.name: one for one in examine_grid(None, {})}
    assert found["intensity"].level == "no"
    assert found["intensity"].remedy.startswith("export LIGHTNING_GREEN_ZONE=DE")
    assert found["electricity-maps"].remedy == "export ELECTRICITYMAPS_API_TOKEN=..."
    assert found["watttime"].remedy == "export WATTTIME_USERNAME=...; export WATTTIME_PASSWORD=..."
    assert found["neso"].level == "limited"


def test_zone_that_no_configured_service_covers():
    found = {one.name: one for one in examine_grid(None, {"LIGHTNING_GREEN_ZONE": "JP"})}
    assert found["intensity"].remedy == "pass --grid typical:JP"


def test_invalid_zone():
    (found,) = examine_grid(None, {"LIGHTNING_GREEN_ZONE": "Germany!"})
    assert (found.level, found.is_required) == ("no", True)


def test_supervisor_restarts():
    (found,) = examine_launchers({"LIGHTNING_GREEN_SUPERVISED": "1"})
    assert found.level == "ok"
    assert found.text.startswith("lightning-green run restarts")


def test_shell_does_not_restart():
    (found,) = examine_launchers({})
    assert found.level == "limited"
    assert "lightning-green run -- python train.py" in found.remedy


def test_batch_job_keeps_its_allocation(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    restart, kept, requeue = examine_launchers({"SLURM_JOB_ID": "7"})
    assert restart.text.startswith("SLURM does not restart")
    assert kept.text.startswith("SLURM job 7 keeps the devices")
    assert "--launcher slurm" in kept.remedy
    assert (requeue.level, requeue.remedy) == ("no", "add scontrol to PATH, in a container too")


@pytest.mark.parametrize(
    ("fields", "level", "part"),
    [
        ("Requeue=1 BatchFlag=1 TimeLimit=02:00:00", "ok", "may be requeued; time limit 02:00:00"),
        ("Requeue=0 BatchFlag=1 TimeLimit=UNLIMITED", "limited", "submits its script again; no time limit"),
        ("Requeue=1 BatchFlag=0", "limited", "is interactive"),
    ],
)
def test_requeue_of_a_batch_job(tmp_path, monkeypatch, fields, level, part):
    program = tmp_path / "scontrol"
    program.write_text(f"#!/bin/sh\necho 'JobId=7 JobState=RUNNING {fields}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    *_, requeue = examine_launchers({"SLURM_JOB_ID": "7"})
    assert requeue.level == level
    assert part in requeue.text


def suspension(cluster, monkeypatch):
    monkeypatch.setattr(kubernetes_api, "SERVICE_ACCOUNT", cluster.directory)
    _, kept, found = examine_launchers(cluster.environment)
    assert kept.remedy == "release the pod: lightning-green run --launcher kubernetes -- ..."
    assert {method for method, path, _ in cluster.requests if "selfsubject" not in path} <= {"GET"}
    return found


def test_job_of_a_pod_that_may_be_suspended(cluster, monkeypatch):
    cluster.add_pod(cluster.add_job())
    cluster.add_lease()
    assert suspension(cluster, monkeypatch).level == "ok"


def test_job_of_a_pod_that_would_not_be_suspended(cluster, monkeypatch):
    found = suspension(cluster, monkeypatch)
    assert (found.level, found.remedy) == ("no", "create the Job with: lightning-green kubernetes job --help")
    cluster.add_pod(cluster.add_job())
    found = suspension(cluster, monkeypatch)
    assert (found.level, found.remedy.startswith("Start one:")) == ("limited", True)
    cluster.add_lease()
    cluster.may_patch_jobs = False
    found = suspension(cluster, monkeypatch)
    assert (found.level, found.remedy) == ("limited", "Apply the Role of `lightning-green kubernetes job`")


def test_run_directory_that_does_not_exist_yet(tmp_path):
    permission, space = examine_disk(tmp_path / "a" / "b")
    assert permission.level == "ok"
    assert "GiB are free" in space.text
    assert list(tmp_path.iterdir()) == []


def test_run_directory_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    (found,) = examine_disk(tmp_path / "file" / "run")
    assert (found.level, found.is_required) == ("no", True)


def test_run_directory_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.os, "access", lambda path, mode: False)
    permission, _ = examine_disk(tmp_path)
    assert permission.level == "no"
    assert permission.remedy.startswith(f"chmod u+wx {tmp_path}, or choose another directory")


@pytest.mark.parametrize(("free", "level"), [(2**40, "ok"), (2**30, "limited"), (2**20, "no")])
def test_free_space(tmp_path, monkeypatch, free, level):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**41, 0, free))
    assert list(examine_disk(tmp_path))[1].level == level


def test_missing_package_has_the_line_that_installs_it(monkeypatch):
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name == "wandb" else object())
    found = {one.name: one for one in examine_packages()}
    assert (found["wandb"].level, found["wandb"].remedy) == ("no", "pip install 'lightning-green[wandb]'")
    assert found["demo"].level == "ok"


def test_extras_are_those_of_the_package():
    text = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    names = set(re.findall(r"^([\w-]+) = \[", text, re.MULTILINE))
    assert set(EXTRAS) == names - {"all", "docs", "dev"}


def test_versions(monkeypatch):
    assert levels(examine_versions()) == dict.fromkeys(("python", "torch", "lightning", "torchmetrics"), "ok")
    monkeypatch.setattr(packages, "_version", lambda name: {"pytorch-lightning": "2.5", "torch": None}.get(name, "2.6"))
    found = {one.name: one for one in examine_versions()}
    assert (found["torch"].level, found["torch"].is_required) == ("no", True)
    assert found["pytorch-lightning"].remedy == "pip install pytorch-lightning==2.6"


def test_build_of_pytorch_is_that_of_the_installed_package():
    torch = pytest.importorskip("torch")
    assert cuda_of_torch() == torch.version.cuda
