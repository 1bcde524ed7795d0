"""Every file that is read may contain anything: the result is a value, or an error that the callers expect.

The number of examples is set by LIGHTNING_GREEN_FUZZ_EXAMPLES; `make fuzz` reads 10,000 of each type.
"""

import contextlib
import io
import json
import os
import socket
from datetime import datetime, timedelta, timezone

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_green.grid.live.cache import Cache, Entry
from lightning_green.ledger.events import Paused, Sample
from lightning_green.ledger.history import read_history
from lightning_green.ledger.ledger import Ledger, read_ledger
from lightning_green.ledger.nodes import OtherNodes
from lightning_green.ledger.run_directory import RunDirectory, RunIsAliveError, is_alive, read_record
from lightning_green.planning import FORECAST_ARCHIVE_FILE, Forecast, ForecastArchive
from lightning_green.report.status import status_text
from lightning_green.resume.checkpoints import DAMAGED, load_latest, load_tensors, store_checkpoint
from lightning_green.resume.random_states import capture_random_states, restore_random_states
from lightning_green.run.candidates import read_candidates
from lightning_green.run.claimant import Claimant
from lightning_green.run.coordinator import open_run
from lightning_green.run.identity import Invocation
from lightning_green.run.pause_rule import PauseAt, PauseRule, check_file, read_check, write_check
from lightning_green.run.run import FitIdentity, OtherTrainingError, Run
from lightning_green.supervisor.command import FILE, Command, OtherCommandError, Trainings, describe_fits, read_command
from lightning_green.supervisor.run_directory import open_run_directory
from lightning_green.supervisor.waiting import Waiting
from lightning_green.throttle.profile import ThrottleProfile
from lightning_green.throttle.profile_cache import ProfileCache
from lightning_green.utilities.clock import SimulatedClock, SystemClock
from tests.helpers.any_bytes import HOSTILE, damaged, damaged_bytes, fuzz
from tests.helpers.event_book import Book

NOW = datetime(2024, 5, 2, 12, tzinfo=timezone.utc)
KIND = "average/lifecycle"
LEDGER = "ledger.a.jsonl"
COMMAND = Command(("python", "train.py"), "/home/me")
INVOCATION = Invocation("/home/me/train.py", ("--lr", "1"), "/home/me", {"LIGHTNING_GREEN_RUN_NAME": "a"})
IDENTITY = FitIdentity({"hparams": {"lr": 1.0}, "parameters": {"a": [1, 2]}}, "abc")


def ledger_records():
    """Return one event of each kind that is read for more than its energy."""
    book = Book([100.0] * 40)
    book.start()
    book.work(1.0, event="state", state="held")
    book.work(1.0, event="state", state="running")
    book.work(1.0, event="checkpoint")
    job = {"work_hours": 3.0, "deadline": "2024-05-03T00:00:00+00:00", "levels": ["1:1", "0.7:0.9"]}
    grid = {"class_path": "lightning_green.grid.ConstantSignal", "init_args": {"intensity": 381.0}}
    until = "2024-05-02T20:00:00+00:00"
    last = book.records[-1]
    return [
        *book.records,
        {**last, "event": "decision", "until": until, "deadline": until, "reason": "r", "work_hours": 1.0},
        {**last, "event": "paused", "until": until, "job": job, "grid": grid, "seconds_per_batch": 1.0},
        {**last, "event": "node_started", "node_rank": 1, "startup_s": 1.0},
        {**last, "event": "failed", "traceback": "t", "thread": None, "fit": 1},
        {**last, "event": "ended", "fit": None},
    ]


def run_record():
    fit = {
        "identity": IDENTITY.content,
        "weights": "abc",
        "thread": "",
        "first_start": NOW.isoformat(),
        "optimization": {"optimizers": [{"class": "Adam", "groups": []}], "schedulers": [], "world_size": 1},
        "ckpt_path": {"path": None, "at": 1.0},
        "wandb_folders": ["wandb/offline-run"],
    }
    process = {"process": {"host": "a", "pid": 1, "started": "1"}, "attempt": 1, "continuing": False, "claimed": [0]}
    return {
        "schema": 1,
        "run_id": "abc",
        "invocation": INVOCATION.to_json(),
        "claimed_in": "s/1",
        "environment": {"SEED": "abc"},
        "clock": "simulated:start=2024-05-02T00:00:00+00:00,batch=600",
        "loggers": {"WandbLogger": "id"},
        "fits": {"0": fit},
        "script_process": process,
        "index": 0,
    }


def use_ledger(folder):
    history = read_history(folder)
    assert history.count == len(read_ledger(folder))
    OtherNodes(folder, 1).new_events()
    status_text(RunDirectory(folder))
    trainings = Trainings.of(folder)
    describe_fits(trainings.broken(trainings.states))
    ledger = Ledger(folder, SystemClock(), history.attempts + 1, node="a")
    ledger.append(Sample())
    ledger.close()
    assert read_history(folder).count > history.count or history.attempts >= 100_000
    for (path, fit), state in trainings.paused.items():
        if isinstance(state, Paused):
            with contextlib.suppress(ImportError):  # the classes of a grid are checked by its own tests
                Waiting({(path, fit): state}, lambda line: None)._grid(SystemClock())


def use_record(folder):
    with contextlib.suppress(RuntimeError, ValueError):
        directory = RunDirectory(folder)
        status_text(directory)
        claimant = Claimant(INVOCATION, IDENTITY, variables={"SEED": "x"}, attempt="s/2")
        for candidate in read_candidates(folder):
            for method in (
                *(claimant.trains_same, claimant.starts_same, claimant.differing_variables, claimant.is_done),
                *(claimant.describe_difference, claimant.shares_script, claimant.shares_session),
            ):
                method(candidate)
        run = Run(directory, SystemClock(), continuing=True)
        with contextlib.suppress(OtherTrainingError):
            run.claim_fit(IDENTITY)
        directory.merge()
        directory.save()
        RunDirectory(folder)
        run.end(cleanly=False)
    read_record(folder)


def use_command(folder):
    record = read_command(folder)
    if record:
        with contextlib.suppress(OtherCommandError):
            COMMAND.check(folder, record)
        Command(tuple(record["words"]), record["directory"], record.get("clock")).line(folder)


def use_heartbeat(folder):
    directory = RunDirectory(folder)
    is_alive(folder)
    for role in ("run", "supervisor"):
        directory.describe_owner(role)
        directory.was_abandoned(role)
        directory.is_owned_by(role, os.getpid())


def use_clock(folder):
    clock = SimulatedClock(NOW)
    clock.look(folder)
    clock.bind(folder)
    clock.advance("batch")
    clock.now()


def newest_forecast():
    times = [NOW + timedelta(hours=hour) for hour in range(48)]
    past = [NOW - timedelta(hours=hour) for hour in range(24, 0, -1)]
    return Forecast(times, [100.0] * 48, kind=KIND, issued_at=NOW, history_times=past, history_values=[90.0] * 24)


def use_forecasts(folder):
    archive, forecast = ForecastArchive(folder / FORECAST_ARCHIVE_FILE), newest_forecast()
    archive.issuances("DE", KIND)
    archive.daily_correction("DE", KIND)
    archive.extend_history("DE", forecast)
    archive.add("DE", forecast)
    assert ForecastArchive(folder / FORECAST_ARCHIVE_FILE).problem is None


def use_cache(folder):
    entry = Cache(folder).read("key")
    entry.is_due(1e9, 1e5)
    Cache(folder).write("key", entry)


def use_profile(folder):
    profile = ThrottleProfile(["full", "200 W"], run_seconds=3600.0)
    cache = ProfileCache(["GPU"], "model", ["200 W"])
    cache.path = folder / "profile.json"
    if cache.load(profile):
        profile.levels()
        cache.save(profile)


def use_check(folder):
    read_check(["python", "train.py"], str(folder))


def use_checkpoint(folder):
    with contextlib.suppress(RuntimeError):
        load_latest(folder, 0)


def use_random_states(folder):
    with contextlib.suppress(*DAMAGED):
        restore_random_states(load_tensors(folder / "states.pt"))


def valid_content(folder, write):
    """Return the content that ``write`` gives to a file in ``folder``, as JSON."""
    return json.loads(write(folder).read_text())


def forecasts(folder):
    path = folder / FORECAST_ARCHIVE_FILE
    ForecastArchive(path).add("DE", newest_forecast())
    return path


def check_record(folder):
    os.chdir(folder)
    write_check(["python", "train.py"], PauseRule(PauseAt.EPOCH, "r"), {"train.py": "abc"})
    return check_file(["python", "train.py"], str(folder))


POINT = {"seconds": 0.1, "seconds_error": 0.0, "watts": 250.0, "watts_error": 0.0}
PROFILE = {"names": ["full", "200 W"], "points": [{"name": name, **POINT} for name in ("full", "200 W")]}
ENTRY = {"version": 1, **vars(Entry({"a": 1}, 1e9, 1e9, "", 1, {"etag": "x"}))}
HEARTBEAT = {"host": "elsewhere", "boot": "b", "pid": 3, "at": 1e9}


@pytest.fixture(scope="module")
def contents(tmp_path_factory):
    """Content of the files that this version writes."""
    folder, here = tmp_path_factory.mktemp("valid"), os.getcwd()
    (folder / "checkpoints").mkdir()
    store_checkpoint(folder, 0, 1, {"state_dict": {"a": torch.ones(2)}, "lightning_green_shards": {}})
    states = io.BytesIO()
    torch.save(capture_random_states(with_cuda=False), states)
    found = {
        "forecasts": valid_content(folder, forecasts),
        "check": valid_content(folder, check_record),
        "checkpoint": next((folder / "checkpoints").iterdir()).read_bytes(),
        "states": states.getvalue(),
    }
    os.chdir(here)
    return found


@pytest.fixture(autouse=True)
def checkpoints_directory(tmp_path):
    (tmp_path / "checkpoints").mkdir()


def read_with(tmp_path, use, name, data):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    use(tmp_path)


@fuzz(60)
@given(damaged(*ledger_records(), lines=True))
def test_any_ledger(tmp_path, data):
    read_with(tmp_path, use_ledger, LEDGER, data)


@fuzz(60)
@given(damaged(run_record()))
def test_any_run_json(tmp_path, data):
    (tmp_path / LEDGER).write_text("".join(json.dumps(one) + "\n" for one in ledger_records()))
    read_with(tmp_path, use_record, "run.json", data)


@fuzz(60)
@given(damaged({"words": ["a", "b"], "directory": "/", "clock": None, "pid": 3, "exit_code": 0}))
def test_any_command_json(tmp_path, data):
    read_with(tmp_path, use_command, FILE, data)


@fuzz(60)
@given(damaged(HEARTBEAT))
def test_any_heartbeat(tmp_path, data):
    read_with(tmp_path, use_heartbeat, "run.heartbeat", data)


@fuzz(60)
@given(st.one_of(damaged(1714608000.0), st.floats().map(lambda value: str(value).encode())))
def test_any_clock(tmp_path, data):
    read_with(tmp_path, use_clock, "clock", data)


@fuzz(60)
@given(st.data())
def test_any_forecast_archive(tmp_path, contents, data):
    read_with(tmp_path, use_forecasts, FORECAST_ARCHIVE_FILE, data.draw(damaged(contents["forecasts"])))


@fuzz(60)
@given(damaged(ENTRY))
def test_any_cached_answer(tmp_path, data):
    read_with(tmp_path, use_cache, "key.json", data)


@fuzz(60)
@given(damaged(PROFILE))
def test_any_cached_profile(tmp_path, data):
    read_with(tmp_path, use_profile, "profile.json", data)


@fuzz(60)
@given(st.data())
def test_any_record_of_a_check(tmp_path, contents, data):
    name = str(check_file(["python", "train.py"], str(tmp_path)).relative_to(tmp_path))
    read_with(tmp_path, use_check, name, data.draw(damaged(contents["check"])))


@fuzz(60)
@given(st.data())
def test_any_checkpoint(tmp_path, contents, data):
    name = "checkpoints/fit0-step000000001-0.ckpt"
    read_with(tmp_path, use_checkpoint, name, data.draw(damaged_bytes(contents["checkpoint"])))


@fuzz(60)
@given(st.data())
def test_any_random_states(tmp_path, contents, data):
    read_with(tmp_path, use_random_states, "states.pt", data.draw(damaged_bytes(contents["states"])))


START = {
    LEDGER: damaged(*ledger_records(), lines=True),
    "run.json": damaged(run_record()),
    FILE: damaged({"words": ["a", "b"], "directory": "/", "clock": None, "pid": 3, "exit_code": 0}),
    "supervisor.heartbeat": damaged({**HEARTBEAT, "host": socket.gethostname()}),
    "clock": damaged(1714608000.0),
}


@fuzz(60)
@given(st.dictionaries(st.sampled_from(sorted(START)), st.integers(0, 2), min_size=1), st.data())
def test_any_directory_is_started_or_refused(tmp_path_factory, chosen, data):
    """By a supervisor, and by a training without one."""
    home = tmp_path_factory.mktemp("start") / "run"
    home.mkdir()
    for name in chosen:
        (home / name).write_bytes(data.draw(START[name]))
    with contextlib.suppress(RunIsAliveError, OtherCommandError, RuntimeError, ValueError):
        open_run_directory(home, fresh=False, print_line=lambda line: None, command=COMMAND).unlock()
    with contextlib.suppress(RunIsAliveError, OtherTrainingError, RuntimeError, ValueError):
        run, _ = open_run(home, SystemClock(), INVOCATION, IDENTITY)
        run.end(cleanly=True)


def make_entry(path, kind):
    """Create something else than the expected file."""
    if kind in HOSTILE:
        path.write_bytes(HOSTILE[kind])
    elif kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to("missing")


NAMES = [LEDGER, "run.json", FILE, "supervisor.heartbeat", "run.heartbeat", "clock", "run.lock", "supervisor.lock"]
KINDS = [*sorted(HOSTILE), "directory", "fifo", "loop", "device", "dangling"]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("name", [*NAMES, FORECAST_ARCHIVE_FILE, "checkpoints"])
@pytest.mark.parametrize("kind", KINDS)
def test_odd_entry_in_a_run_directory(tmp_path, name, kind):
    home = tmp_path / "run"
    home.mkdir()
    record = {**run_record(), "invocation": INVOCATION.to_json()}
    (home / "run.json").write_text(json.dumps(record))
    (home / LEDGER).write_text("".join(json.dumps(one) + "\n" for one in ledger_records()))
    (home / name).unlink(missing_ok=True)
    make_entry(home / name, kind)
    allowed = (RuntimeError, ValueError, OSError)
    with contextlib.suppress(*allowed):
        status_text(RunDirectory(home))
    with contextlib.suppress(*allowed):
        open_run_directory(home, fresh=False, print_line=lambda line: None, command=COMMAND).unlock()
    with contextlib.suppress(*allowed):
        run, _ = open_run(home, SimulatedClock(NOW), INVOCATION, IDENTITY)
        run.end(cleanly=True)
    ForecastArchive(home / FORECAST_ARCHIVE_FILE).add("DE", newest_forecast())
