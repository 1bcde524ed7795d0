"""Locks and heartbeats, with processes of this machine and of others."""

import json
import os
import subprocess
import threading
import time

import pytest

from lightning_green.ledger.role_lock import HEARTBEAT_STALE_SECONDS, Heartbeat, RoleLock, RunIsAliveError
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.utilities.processes import boot_id


def write_heartbeat(folder, host="another-machine", boot="another", at=None, written=None):
    """Write the heartbeat of another machine; its file has the time ``written``."""
    path = folder / "run.heartbeat"
    path.write_text(json.dumps({"host": host, "boot": boot, "pid": 4711, "at": time.time() if at is None else at}))
    if written is not None:
        os.utime(path, (written, written))


@pytest.fixture
def quick(monkeypatch):
    """Watch heartbeats for two seconds instead of 90."""
    monkeypatch.setattr("lightning_green.ledger.role_lock.HEARTBEAT_STALE_SECONDS", 2.0)
    monkeypatch.setattr("lightning_green.ledger.role_lock._POLL_SECONDS", 0.05)


@pytest.mark.parametrize(("age", "alive"), [(5.0, True), (HEARTBEAT_STALE_SECONDS + 5.0, False), (-3600.0, False)])
def test_recent_heartbeat_of_another_machine_counts(tmp_path, age, alive):
    """Network file systems may not share locks. The time is that of the file, not that of the other machine."""
    write_heartbeat(tmp_path, at=0.0, written=time.time() - age)
    assert RunDirectory(tmp_path).is_alive("run") is alive


@pytest.mark.parametrize("offset", [0.0, 1e6, -3600.0])
def test_a_machine_whose_heartbeat_changes_keeps_its_lock(tmp_path, quick, offset):
    """Also if its clock is ahead or behind by any time."""
    stop = threading.Event()

    def beat():
        while not stop.is_set():
            write_heartbeat(tmp_path, at=time.time() + offset)
            stop.wait(0.2)

    write_heartbeat(tmp_path, at=time.time() + offset)
    thread = threading.Thread(target=beat)
    thread.start()
    directory = RunDirectory(tmp_path)
    try:
        with pytest.raises(RunIsAliveError, match="process 4711 on another-machine") as refused:
            directory.lock("run")
    finally:
        stop.set()
        thread.join()
    assert refused.tb is not None  # the traceback references the objects of the refused call
    os.remove(tmp_path / "run.heartbeat")
    directory.lock("run")  # the refused call holds no lock
    directory.unlock()


@pytest.mark.parametrize("written", [0.0, 3600.0, 1e9])
def test_a_heartbeat_that_does_not_change_blocks_for_a_bounded_time(tmp_path, quick, written):
    write_heartbeat(tmp_path, at=9e12, written=time.time() + written)
    began = time.monotonic()
    directory = RunDirectory(tmp_path)
    directory.lock("run")
    assert time.monotonic() - began < 10.0
    directory.unlock()


def test_a_restarted_container_of_the_same_machine_starts_at_once(tmp_path):
    write_heartbeat(tmp_path, host="pod-1b", boot=boot_id())
    began = time.monotonic()
    directory = RunDirectory(tmp_path)
    assert not directory.is_alive("run")
    directory.lock("run")
    assert time.monotonic() - began < 5.0
    directory.unlock()


def test_a_clean_end_of_another_machine_is_noticed_while_it_is_watched(tmp_path, quick):
    write_heartbeat(tmp_path)
    timer = threading.Timer(0.3, os.remove, (tmp_path / "run.heartbeat",))
    timer.start()
    began = time.monotonic()
    directory = RunDirectory(tmp_path)
    directory.lock("run")
    assert time.monotonic() - began < 1.8
    directory.unlock()


def test_heartbeat_that_cannot_be_written_is_reported_once_and_written_later(tmp_path, monkeypatch, caplog):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    lock = RoleLock(tmp_path, "run")
    lock.acquire()
    monkeypatch.setattr("lightning_green.ledger.role_lock.write_json", full)
    for _ in range(3):
        lock.beat(force=True)
    assert len([line for line in caplog.messages if "cannot be written (No space left on device)" in line]) == 1
    monkeypatch.undo()
    before = Heartbeat.read(tmp_path / "run.heartbeat").text
    lock.beat(force=True)
    assert Heartbeat.read(tmp_path / "run.heartbeat").text != before
    assert "can be written again" in caplog.text
    lock.release()


def test_lock_of_a_renamed_directory_is_not_that_of_the_new_one(tmp_path, caplog):
    (tmp_path / "run").mkdir()
    old, new = RoleLock(tmp_path / "run", "run"), RoleLock(tmp_path / "run", "run")
    old.acquire()
    (tmp_path / "run").rename(tmp_path / "moved")
    (tmp_path / "run").mkdir()
    new.acquire()
    old.beat(force=True)  # writes into neither directory
    assert len([line for line in caplog.messages if "was moved or deleted" in line]) == 1
    old.release()
    assert (tmp_path / "run" / "run.heartbeat").exists()
    assert RoleLock(tmp_path / "run", "run").is_alive()
    new.release()


def test_deleted_lock_file_is_locked_again(tmp_path):
    lock = RoleLock(tmp_path, "run")
    lock.acquire()
    (tmp_path / "run.lock").unlink()
    assert not RoleLock(tmp_path, "run").is_alive()
    lock.beat(force=True)
    assert RoleLock(tmp_path, "run").is_alive()
    lock.release()
    assert not RoleLock(tmp_path, "run").is_alive()


def test_a_forked_process_does_not_keep_the_lock(tmp_path):
    lock = RoleLock(tmp_path, "run")
    lock.acquire()
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    other = subprocess.Popen(["sleep", "60"])
    try:
        lock.release()
        again = RoleLock(tmp_path, "run")
        again.acquire()
        again.release()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        other.kill()
        other.wait()


@pytest.mark.parametrize("name", ["run.lock", "run.heartbeat"])
@pytest.mark.parametrize("kind", ["fifo", "directory", "loop"])
@pytest.mark.timeout(60)
def test_odd_files_do_not_block(tmp_path, name, kind):
    path = tmp_path / name
    {"fifo": os.mkfifo, "directory": os.mkdir, "loop": lambda path: os.symlink(path, path)}[kind](path)
    lock = RoleLock(tmp_path, "run")
    lock.is_alive()
    lock.describe_owner()
    if name == "run.lock" and kind != "fifo":
        with pytest.raises(OSError, match=r"run\.lock"):
            lock.acquire()
    else:
        lock.acquire()
    lock.release()
