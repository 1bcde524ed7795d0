"""Importing and training contact nothing that the user did not name: the system calls of real processes."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import importlib, pkgutil, sys, warnings
warnings.simplefilter("ignore")
import lightning_green
for found in pkgutil.walk_packages(lightning_green.__path__, "lightning_green."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
from pathlib import Path
from lightning_green import CarbonScheduler, EmissionsTracker
from lightning.pytorch.demos.boring_classes import BoringModel
from tests.helpers.trainers import batches, quiet_trainer
callbacks = [CarbonScheduler(grid="typical:DE", deadline="2h"), EmissionsTracker()]
trainer = quiet_trainer(Path("."), *callbacks)
trainer.fit(BoringModel(), batches())
print("finished", trainer.global_step)
"""


def run(words, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LIGHTNING_GREEN_CACHE_DIR": str(folder / "cache")}
    return subprocess.run(
        [*words, sys.executable, "-c", SCRIPT], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def is_local(call):
    """Return whether a system call contacts this machine only, or nothing."""
    if any(family in call for family in ("AF_UNIX", "AF_LOCAL", "AF_NETLINK", "AF_UNSPEC")):
        return True
    address = re.search(r'inet_addr\("([\d.]+)"\)|inet_pton\(AF_INET6, "([^"]+)"', call)
    found = address and (address[1] or address[2])
    return bool(found) and (found.startswith("127.") or found in ("::1", "0.0.0.0", "::"))


def works(*words):
    return shutil.which(words[0]) and subprocess.run([*words, "true"], capture_output=True).returncode == 0


@pytest.mark.slow
def test_import_and_training_connect_to_nothing(tmp_path):
    if not works("strace", "-f", "-o", str(tmp_path / "probe"), "-e", "trace=connect"):
        pytest.skip("strace cannot trace processes here")
    calls = "trace=connect,sendto,sendmsg,sendmmsg"
    done = run(["strace", "-f", "-qq", "-o", str(tmp_path / "calls"), "-e", calls], tmp_path)
    assert "finished 6" in done.stdout, done.stderr
    lines = [line for line in (tmp_path / "calls").read_text().splitlines() if "AF_" in line or "connect(" in line]
    assert [line for line in lines if "sa_family" in line and not is_local(line)] == []


@pytest.mark.slow
def test_import_and_training_need_no_network(tmp_path):
    words = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    if not works(*words):
        pytest.skip("network namespaces cannot be created here")
    done = run(words, tmp_path)
    assert "finished 6" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("call", "local"),
    [
        ('connect(3, {sa_family=AF_UNIX, sun_path="/run/x"}, 110) = 0', True),
        ('connect(3, {sa_family=AF_INET, sin_port=htons(80), sin_addr=inet_addr("127.0.0.1")}, 16) = 0', True),
        ('connect(3, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("9.9.9.9")}, 16) = 0', False),
        ('connect(3, {sa_family=AF_INET6, sin6_port=htons(443), inet_pton(AF_INET6, "2606::1", &x)}, 28) = 0', False),
        ("connect(3, 0x7ffc, 16) = 0", False),
    ],
)
def test_local_calls_are_recognized(call, local):
    assert is_local(call) == local
