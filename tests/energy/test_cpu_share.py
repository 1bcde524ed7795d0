"""The job's share of a machine."""

import os
import subprocess
import sys
import time

import pytest

from lightning_green.energy.cpu_share import EnergyShare, own_cgroup

BURN = "import time; end = time.monotonic() + 60\nwhile time.monotonic() < end: pass"


def cgroup(tmp_path, path, files):
    """Create a cgroup and the file that names it; return what ``own_cgroup`` finds."""
    folder = tmp_path / "cgroup" / path.lstrip("/")
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text("usage_usec 5\n")
    (tmp_path / "self").write_text(f"0::{path}\n")
    found = own_cgroup(tmp_path / "cgroup", tmp_path / "self")
    return None if found is None else "/" + str(found.relative_to(tmp_path / "cgroup")).lstrip(".")


FILES = ("cgroup.type", "cpu.stat")


@pytest.mark.parametrize(
    ("path", "files", "expected"),
    [
        ("/kubepods/pod1/c", FILES, "/kubepods/pod1/c"),
        ("/", FILES, "/"),  # of a container
        ("/", ("cpu.stat",), None),  # the whole machine
        ("/user.slice/user-1000.slice/session-3.scope", FILES, None),
        ("/user.slice/user-1000.slice/run-r12.scope", FILES, "/user.slice/user-1000.slice/run-r12.scope"),
    ],
)
def test_cgroup_of_the_job(tmp_path, path, files, expected):
    assert cgroup(tmp_path, path, files) == expected


def test_tasks_of_a_slurm_job_are_one_job(tmp_path):
    job = tmp_path / "cgroup/slurm/job_7"
    job.mkdir(parents=True)
    for name in FILES:
        (job / name).write_text("")
    (tmp_path / "self").write_text("0::/slurm/job_7/step_0/user/task_1\n")
    assert own_cgroup(tmp_path / "cgroup", tmp_path / "self") == job


def test_process_that_uses_the_cpu_has_a_share_and_a_child_belongs_to_it():
    share = EnergyShare("job", cgroups="/nonexistent")
    share.start()
    child = subprocess.Popen([sys.executable, "-c", BURN])
    try:
        time.sleep(1.5)
        found = share.of({"cpu": 100.0, "gpu": 100.0})
    finally:
        child.kill()
        child.wait()
    assert 1.0 < found["cpu"] <= 100.0
    assert found["gpu"] == 100.0
    assert (share.quality("cpu", "measured"), share.quality("gpu", "measured")) == ("modelled", "measured")


def test_second_run_that_counts_the_whole_machine_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first, second, third = (EnergyShare("node") for _ in range(3))
    first.start()
    second.start()
    assert first.problem is None
    assert "counts it twice" in second.problem
    assert second.of({"cpu": 3.0}) == {"cpu": 3.0}
    first.close()
    third.start()
    assert third.problem is None
    third.close()
    assert os.listdir(tmp_path / "lightning-green" / "energy")


def test_unknown_share_raises():
    with pytest.raises(ValueError, match='`share` should be "job" or "node", got \'mine\''):
        EnergyShare("mine")
