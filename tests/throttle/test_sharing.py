"""GPUs of the job on which processes of other users run."""

import logging
import os

import pytest

from lightning_green.planning import Level
from lightning_green.throttle import sharing
from lightning_green.throttle.controller import ThrottleController, ThrottleState
from lightning_green.throttle.sharing import describe_other_users
from tests.helpers.other_user import process_of_another_user

FULL, LOW = Level(1.0, 1.0), Level(0.8, 0.9)
UNKNOWN = 2**22 + 1  # above the highest PID of Linux


@pytest.fixture(scope="module")
def stranger():
    with process_of_another_user() as pid:
        yield pid


@pytest.fixture(autouse=True)
def _no_zeusd(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEUSD_SOCK_PATH", str(tmp_path / "none.sock"))


def test_own_processes_are_those_of_the_job(driver):
    assert describe_other_users(None) is None
    driver.cards[0].processes = [os.getpid()]
    assert describe_other_users(None) is None
    assert driver.open == 0


def test_process_of_another_user_is_reported_with_its_gpu(driver, stranger):
    driver.cards[1].processes = [os.getpid(), stranger]
    assert describe_other_users(None) == f"GPU 1 also runs a process of another user (PID {stranger})"
    assert describe_other_users(["GPU-aa"]) is None
    assert driver.open == 0


def test_single_process_with_the_number_of_the_host_is_that_of_the_job(driver):
    driver.cards[0].processes = [UNKNOWN]
    assert describe_other_users(None) is None
    driver.cards[0].processes = [UNKNOWN, UNKNOWN + 1]
    assert "processes of other users" in describe_other_users(None)
    driver.cards[0].processes = [os.getpid(), UNKNOWN]
    assert f"(PID {UNKNOWN})" in describe_other_users(None)


def test_older_driver_reports_processes_by_an_older_function(driver, stranger):
    driver.cards[0].processes = [stranger]
    driver.missing.add("nvmlDeviceGetComputeRunningProcesses_v3")
    assert "GPU 0" in describe_other_users(None)
    assert driver.open == 0


def test_driver_that_does_not_report_processes(driver, stranger):
    driver.cards[0].processes = [stranger]
    driver.missing = {f"nvmlDeviceGetComputeRunningProcesses_v{number}" for number in (2, 3)}
    assert describe_other_users(None) is None
    assert driver.open == 0


def test_process_that_cannot_be_read_is_unknown(driver, monkeypatch, tmp_path):
    monkeypatch.setattr(sharing, "PROC", tmp_path)
    driver.cards[0].processes = [os.getpid()]
    assert describe_other_users(None) is None


@pytest.mark.parametrize("throttle", ["auto", "0.8:0.9"])
def test_auto_does_not_change_a_shared_gpu_and_logs_one_line(driver, stranger, tmp_path, caplog, throttle):
    driver.cards[1].processes = [stranger]
    controller = ThrottleController(throttle)
    with caplog.at_level(logging.WARNING):
        controller.start(tmp_path, None, "model", on_gpu=True)
    (record,) = caplog.records
    assert f"GPU 1 also runs a process of another user (PID {stranger}). Name an actuator" in record.getMessage()
    assert controller.state is ThrottleState.UNAVAILABLE
    assert controller.levels() == (FULL,)
    assert controller.names == []
    assert not [name for name, _ in driver.calls if "Set" in name]


def test_named_actuator_changes_a_shared_gpu(driver, stranger, tmp_path):
    driver.cards[1].processes = [stranger]
    controller = ThrottleController(["nvml-power-limit", LOW])
    controller.start(tmp_path, None, "model", on_gpu=True)
    assert controller.choose(LOW) == LOW
    controller.restore()


def test_gpu_that_another_user_starts_to_use_is_restored(driver, stranger, tmp_path, caplog):
    controller = ThrottleController([LOW])
    controller.start(tmp_path, None, "model", on_gpu=True)
    limits = [card.limit for card in driver.cards]
    assert controller.choose(LOW) == LOW
    driver.cards[0].processes = [stranger]
    with caplog.at_level(logging.WARNING):
        assert controller.choose(LOW) == FULL
        assert controller.choose(LOW) == FULL
    (record,) = caplog.records
    assert "at full power while GPU 0 also runs a process of another user" in record.getMessage()
    assert [card.limit for card in driver.cards] == limits
    driver.cards[0].processes = []
    assert controller.choose(LOW) == LOW
    controller.restore()
    assert [card.limit for card in driver.cards] == limits


def test_without_a_directory_of_processes_no_user_is_known(driver, stranger, monkeypatch, tmp_path):
    monkeypatch.setattr(sharing, "PROC", tmp_path / "none")
    driver.cards[0].processes = [os.getpid(), stranger]
    assert describe_other_users(None) is None
