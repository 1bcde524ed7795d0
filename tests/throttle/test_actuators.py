"""Each actuator against a driver, a daemon or a tree of our own; each way to end against real processes."""

import json
import os
import signal
import socketserver
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
import torch

from lightning_green.throttle import Setting, restore_left_over
from lightning_green.throttle.cgroup_cpu_max import CgroupCpuMax
from lightning_green.throttle.cpu_governor import CpuGovernor
from lightning_green.throttle.duty_cycle import DutyCycle
from lightning_green.throttle.nvml_locked_clocks import NvmlLockedClocks
from lightning_green.throttle.nvml_power_limit import NvmlPowerLimit
from lightning_green.throttle.rapl_power_limit import RaplPowerLimit
from lightning_green.throttle.thread_count import ThreadCount
from lightning_green.throttle.zeusd_locked_clocks import ZeusdLockedClocks
from lightning_green.throttle.zeusd_power_limit import ZeusdPowerLimit
from tests.energy.fake_nvml import Card, FakeDriver

ROOT = Path(__file__).parents[2]


@pytest.fixture
def driver(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return FakeDriver([Card("GPU-aa", limit=500_000), Card("GPU-bb", limit=650_000)]).install(monkeypatch)


def packages(folder, watts=(200, 150)):
    for number, limit in enumerate(watts):
        zone = folder / f"intel-rapl:{number}"
        zone.mkdir(parents=True)
        (zone / "name").write_text(f"package-{number}\n")
        (zone / "constraint_0_name").write_text("long_term\n")
        (zone / "constraint_0_power_limit_uw").write_text(f"{limit * 1_000_000}\n")
        (zone / "constraint_1_name").write_text("short_term\n")
        (zone / "constraint_1_power_limit_uw").write_text("999000000\n")
    return folder


def limits(folder):
    return [int(path.read_text()) / 1e6 for path in sorted(folder.glob("*/constraint_0_power_limit_uw"))]


# -- NVML --------------------------------------------------------------------------------------------------------------


def test_a_power_limit_goes_back_to_what_was_found_and_not_to_the_maximum(driver, tmp_path):
    cap = NvmlPowerLimit()
    cap.bind(tmp_path)
    assert [level.name for level in cap.levels()] == ["500 W", "450 W", "400 W", "350 W", "300 W", "250 W"]
    assert cap.set(cap.levels()[2])
    assert [card.limit for card in driver.cards] == [400_000, 400_000]
    assert cap.set(cap.levels()[3])
    (file,) = tmp_path.glob("throttle.*.json")
    (entry,) = json.loads(file.read_text())["entries"].values()
    assert entry["state"] == {"GPU-aa": 500_000, "GPU-bb": 650_000}
    assert cap.set(cap.levels()[0])
    assert [card.limit for card in driver.cards] == [500_000, 650_000]
    assert not file.exists()
    assert cap.restore()
    assert driver.open == 0


def test_without_permission_there_is_one_warning_with_the_remedy_and_no_level(driver, caplog):
    for card in driver.cards:
        card.root = False
    for actuator in (NvmlPowerLimit(), NvmlLockedClocks()):
        caplog.clear()
        assert actuator.levels() == ()
        assert actuator.levels() == ()
        (record,) = caplog.records
        assert "run as root" in record.getMessage()
        assert "zeusd" in record.getMessage()
        with pytest.raises(ValueError, match="should be one of none"):
            actuator.set(Setting("250 W", 250.0))
    assert [card.limit for card in driver.cards] == [500_000, 650_000]


def test_only_the_jobs_cards_are_capped_and_no_shared_one(driver, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-bb")
    cap = NvmlPowerLimit([300, 100, 900])
    assert [level.name for level in cap.levels()] == ["650 W", "300 W"]  # the card takes neither 100 nor 900
    cap.set(cap.levels()[1])
    assert [card.limit for card in driver.cards] == [500_000, 300_000]
    cap.restore()
    driver.cards[1].mig = [("MIG-1", 1, 0, 3)]
    assert NvmlPowerLimit().levels() == ()


def test_locked_clocks_are_supported_ones_and_unlocked_again(driver, tmp_path):
    clocks = NvmlLockedClocks([1400, 1203])
    clocks.bind(tmp_path)
    assert [level.value for level in clocks.levels()] == [1980, 1395, 1200]
    clocks.set(clocks.levels()[1])
    assert {card.locked for card in driver.cards} == {(0, 1395)}
    clocks.restore()
    assert {card.locked for card in driver.cards} == {None}
    site = NvmlLockedClocks(previous=(210, 1500))
    site.set(site.levels()[1])
    site.restore()
    assert {card.locked for card in driver.cards} == {(210, 1500)}


def test_a_card_that_refuses_later_is_brought_back_and_training_goes_on(driver):
    cap = NvmlPowerLimit()
    level = cap.levels()[1]
    driver.cards[1].limits = (600_000, 700_000)
    assert not cap.set(level)
    assert [card.limit for card in driver.cards] == [500_000, 650_000]
    assert "could not be set" in cap.problem


# -- zeusd -------------------------------------------------------------------------------------------------------------


class Daemon(BaseHTTPRequestHandler):
    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def handle_one(self):
        address, state = urlparse(self.path), self.server.state
        query = {key: value[0] for key, value in parse_qs(address.query).items()}
        ids = query.get("gpu_ids", "").split(",")
        state["seen"].append((self.command, address.path, query))
        if address.path == "/discover":
            return self.answer(200, {"gpus": [], "cpus": [], "enabled_api_groups": state["groups"]})
        if state["token"] and self.headers.get("Authorization") != f"Bearer {state['token']}":
            return self.answer(403, {"error": "no"})
        if address.path == "/gpu/get_power_limit":
            return self.answer(200, {gpu: {"power_limit_mw": state["limits"][gpu]} for gpu in ids})
        if address.path == "/gpu/get_power_limit_constraints":
            both = {"min_power_limit_mw": 100_000, "max_power_limit_mw": 400_000}
            return self.answer(200, dict.fromkeys(ids, both))
        if self.command == "POST" and address.path == "/gpu/set_power_limit":
            state["limits"].update(dict.fromkeys(ids, int(query["power_limit_mw"])))
            return self.answer(200, {})
        if self.command == "POST" and address.path == "/gpu/set_gpu_locked_clocks":
            state["clocks"] = (ids, int(query["min_clock_mhz"]), int(query["max_clock_mhz"]))
            return self.answer(200, {})
        if self.command == "POST" and address.path == "/gpu/reset_gpu_locked_clocks":
            state["clocks"] = None
            return self.answer(200, {})
        return self.answer(404, {})

    def do_GET(self):
        self.handle_one()

    do_POST = do_GET

    def address_string(self):
        return "unix"

    def log_message(self, *args):
        pass


class UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def zeusd(tmp_path, monkeypatch):
    monkeypatch.delenv("ZEUSD_TOKEN", raising=False)
    path = str(tmp_path / "z.sock")
    monkeypatch.setenv("ZEUSD_SOCK_PATH", path)
    server = UnixServer(path, Daemon)
    server.state = {
        "seen": [],
        "groups": ["gpu-control", "gpu-read"],
        "token": "",
        "limits": {"0": 300_000, "2": 250_000},
        "clocks": "never set",
    }
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.state
    server.shutdown()
    server.server_close()


def test_zeusd_sets_and_restores_a_power_limit(zeusd, tmp_path):
    cap = ZeusdPowerLimit(gpu_ids=[0, 2])
    cap.bind(tmp_path)
    assert [level.value for level in cap.levels()] == [250.0, 225.0, 200.0, 175.0, 150.0, 125.0]
    assert cap.set(cap.levels()[2])
    assert zeusd["limits"] == {"0": 200_000, "2": 200_000}
    cap.restore()
    assert zeusd["limits"] == {"0": 300_000, "2": 250_000}


def test_zeusd_takes_the_jobs_cards_from_the_driver(zeusd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-cc")
    FakeDriver([Card("GPU-aa"), Card("GPU-bb"), Card("GPU-cc")]).install(monkeypatch)
    cap = ZeusdPowerLimit([120])
    cap.set(cap.levels()[1])
    assert zeusd["limits"] == {"0": 300_000, "2": 120_000}
    cap.restore()


def test_zeusd_locks_clocks(zeusd):
    clocks = ZeusdLockedClocks([1200], gpu_ids=[0, 2])
    clocks.set(clocks.levels()[1])
    assert zeusd["clocks"] == (["0", "2"], 0, 1200)
    clocks.restore()
    assert zeusd["clocks"] is None


def test_zeusd_that_refuses_or_is_not_there_says_what_would_help(zeusd, monkeypatch):
    zeusd["token"] = "secret-token"
    cap = ZeusdPowerLimit(gpu_ids=[0])
    assert cap.levels() == ()
    assert "ZEUSD_TOKEN" in cap.problem
    monkeypatch.setenv("ZEUSD_TOKEN", "secret-token")
    assert len(ZeusdPowerLimit(gpu_ids=[0]).levels()) > 1
    zeusd["groups"] = ["gpu-read"]
    off = ZeusdPowerLimit(gpu_ids=[0])
    assert off.levels() == ()
    assert "gpu-control" in off.problem
    gone = ZeusdPowerLimit(gpu_ids=[0], socket="/nowhere/zeusd.sock")
    assert gone.levels() == ()
    assert "ZEUSD_SOCK_PATH" in gone.problem


# -- files -------------------------------------------------------------------------------------------------------------


def test_rapl_limits_packages(tmp_path):
    folder = packages(tmp_path / "powercap")
    cap = RaplPowerLimit([120, 170], powercap=folder)
    cap.bind(tmp_path)
    assert [level.value for level in cap.levels()] == [150.0, 120.0]
    cap.set(cap.levels()[1])
    assert limits(folder) == [120.0, 120.0]
    cap.restore()
    assert limits(folder) == [200.0, 150.0]


def test_governor_offers_only_what_is_slower(tmp_path):
    for number in range(2):
        policy = tmp_path / f"policy{number}"
        policy.mkdir()
        (policy / "scaling_governor").write_text("schedutil\n")
        (policy / "scaling_available_governors").write_text("performance schedutil powersave\n")
    governor = CpuGovernor(tmp_path)
    assert [level.name for level in governor.levels()] == ["schedutil", "powersave"]
    governor.set(governor.levels()[1])
    assert {path.read_text() for path in tmp_path.glob("policy*/scaling_governor")} == {"powersave\n"}
    governor.restore()
    assert {path.read_text() for path in tmp_path.glob("policy*/scaling_governor")} == {"schedutil\n"}
    assert CpuGovernor(tmp_path / "none").levels() == ()


@pytest.mark.parametrize(("text", "full"), [("max 100000", None), ("400000 100000", 4.0), ("max", None)])
def test_cgroup(tmp_path, text, full):
    (tmp_path / "cpu.max").write_text(text + "\n")
    group = CgroupCpuMax([0.5], group=tmp_path)
    assert group.levels()[0].value == (full or float(os.cpu_count()))
    group.set(group.levels()[1])
    assert (tmp_path / "cpu.max").read_text() == "50000 100000\n"
    group.restore()
    assert (tmp_path / "cpu.max").read_text() == text + "\n"


def test_a_file_that_may_not_be_written(tmp_path, monkeypatch):
    folder = packages(tmp_path / "powercap")

    def refuse(self, *args, **kwargs):  # the tests may run as root, whom no file mode stops
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "write_text", refuse)
    cap = RaplPowerLimit(powercap=folder)
    assert cap.levels() == ()
    assert "run as root" in cap.problem


# -- inside the process ------------------------------------------------------------------------------------------------


def test_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        threads = ThreadCount()
        assert [level.value for level in threads.levels()] == [4, 2, 1]
        threads.set(threads.levels()[1])
        assert torch.get_num_threads() == 2
        threads.restore()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_duty_cycle_sleeps_for_the_rest_of_the_time():
    slept = []
    duty = DutyCycle([0.25], sleep=slept.append)
    duty.on_step(2.0)
    duty.set(duty.levels()[1])
    duty.on_step(2.0)
    duty.restore()
    duty.on_step(2.0)
    assert slept == [6.0]


@pytest.mark.parametrize("fractions", [[1.0], [0.0], [], [2.0]])
def test_a_duty_cycle_out_of_range(fractions):
    with pytest.raises(ValueError, match="`fractions` should"):
        DutyCycle(fractions)


# -- ways to end -------------------------------------------------------------------------------------------------------

CHILD = """
import os, signal, sys, time
from lightning_green.throttle.rapl_power_limit import RaplPowerLimit
cap = RaplPowerLimit([100], powercap=sys.argv[1])
cap.bind(__import__("pathlib").Path(sys.argv[2]))
assert cap.set(cap.levels()[-1])
print("throttled", flush=True)
"""


def start(folder, run, ending):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD + textwrap.dedent(ending), str(folder), str(run)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "throttled\n", child.stderr.read()
    return child


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_is_cleaned_up_after(tmp_path, number):
    folder = packages(tmp_path / "powercap")
    child = start(folder, tmp_path, "time.sleep(60)")
    assert limits(folder) == [100.0, 100.0]
    assert restore_left_over(tmp_path) == []  # it is alive: what it set is meant
    assert limits(folder) == [100.0, 100.0]
    child.send_signal(number)
    child.wait(10)
    assert limits(folder) == [100.0, 100.0]
    (line,) = restore_left_over(tmp_path)
    assert "RAPL power limit was left throttled" in line
    assert limits(folder) == [200.0, 150.0]
    assert restore_left_over(tmp_path) == []
    child.communicate()


@pytest.mark.parametrize("ending", ["", "raise RuntimeError('x')", "sys.exit(75)"])
def test_a_process_that_ends_restores(tmp_path, ending):
    folder = packages(tmp_path / "powercap")
    child = start(folder, tmp_path, ending)
    child.communicate(timeout=20)
    assert limits(folder) == [200.0, 150.0]
    assert list(tmp_path.glob("throttle.*")) == []


def test_the_next_process_of_the_run_restores_before_it_takes_anything_for_found(tmp_path):
    folder = packages(tmp_path / "powercap")
    for _ in range(2):
        child = start(folder, tmp_path, "time.sleep(60)")
        child.kill()
        child.communicate()
    cap = RaplPowerLimit([50], powercap=folder)
    cap.bind(tmp_path)
    assert limits(folder) == [200.0, 150.0]
    assert [level.value for level in cap.levels()] == [150.0, 50.0]


def test_after_a_restart_of_the_machine_nothing_is_written(tmp_path):
    folder = packages(tmp_path / "powercap")
    child = start(folder, tmp_path, "time.sleep(60)")
    child.kill()
    child.communicate()
    (file,) = tmp_path.glob("throttle.*.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another"}))
    assert restore_left_over(tmp_path) == []
    assert limits(folder) == [100.0, 100.0]


def test_what_cannot_be_restored_stays_on_record(tmp_path):
    folder = packages(tmp_path / "powercap")
    child = start(folder, tmp_path, "time.sleep(60)")
    child.kill()
    child.communicate()
    limit = folder / "intel-rapl:0" / "constraint_0_power_limit_uw"
    limit.unlink()
    limit.mkdir()
    (line,) = restore_left_over(tmp_path)
    assert "could not be brought back" in line
    limit.rmdir()
    assert len(restore_left_over(tmp_path)) == 1
    assert limits(folder) == [200.0, 150.0]


def test_where_the_state_cannot_be_written_down_nothing_is_changed(tmp_path):
    folder = packages(tmp_path / "powercap")
    cap = RaplPowerLimit([100], powercap=folder)
    cap.bind(tmp_path / "missing")
    assert not cap.set(cap.levels()[1])
    assert limits(folder) == [200.0, 150.0]
