"""The record of a supervised command and the state of its trainings."""

import json
import shlex

import pytest

from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.run_directory import RunDirectory
from lightning_green.supervisor.command import (
    Command,
    OtherCommandError,
    Trainings,
    describe_fits,
    read_command,
    write_command,
)
from lightning_green.utilities.clock import SystemClock
from tests.helpers.ledgers import make_event

CLOCK = "simulated:start=2024-05-02T00:00:00+00:00,batch=60"
LOOP = Command(("bash", "-c", "for s in 1 2; do SEED=$s python train.py; done"), "/home/me", CLOCK)


def test_line_is_quoted_for_a_shell(tmp_path):
    line = LOOP.line(tmp_path / "a run", "--force")
    words = shlex.split(line)
    assert words[:4] == ["lightning-green", "run", "--run-dir", str(tmp_path / "a run")]
    assert words[4:] == ["--force", "--clock", CLOCK, "--", *LOOP.words]


def test_command_is_recorded_and_compared(tmp_path):
    assert read_command(tmp_path) == {}
    write_command(tmp_path, LOOP, None)
    recorded = read_command(tmp_path)
    assert recorded["exit_code"] is None
    LOOP.check(tmp_path, recorded)
    for other, message in (
        (Command(LOOP.words, LOOP.directory), "on the simulated clock .*, not on the system clock"),
        (Command(("python", "train.py", "--lr", "1"), LOOP.directory, CLOCK), "not with `python train.py --lr 1` in"),
        (Command(LOOP.words, "/elsewhere", CLOCK), "in /home/me, not with .* in /elsewhere"),
    ):
        with pytest.raises(OtherCommandError, match=message) as refused:
            other.check(tmp_path, recorded)
        assert "--fresh" in str(refused.value)


def test_secrets_are_compared_and_not_stored(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))
    words = ("python", "train.py", "--api-key", "k3y-one", "--lr=1", "HF_TOKEN=k3y-one", "https://me:k3y-one@host")
    command = Command(words, "/home/me")
    write_command(tmp_path, command, None)
    path = tmp_path / "command.json"
    assert "k3y-one" not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    command.check(tmp_path, read_command(tmp_path))
    command.check(tmp_path, {"words": list(words), "directory": "/home/me"})  # of an earlier version
    other = Command(tuple(word.replace("k3y-one", "k3y-two") for word in words), "/home/me")
    with pytest.raises(OtherCommandError) as refused:
        other.check(tmp_path, read_command(tmp_path))
    assert "k3y" not in str(refused.value)
    line = command.line(tmp_path)
    assert "k3y" not in line
    assert line.endswith("  # replace <secret>")
    assert Command.from_environment(command.to_environment()) == command


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"words": 3}', "[" * 10_000])
def test_unreadable_record_is_empty(tmp_path, content):
    (tmp_path / "command.json").write_text(content)
    assert read_command(tmp_path) == {}


@pytest.fixture
def command(tmp_path):
    """Return a function that writes events of a run, as ``(fit, event)``."""

    def write(name, *events, **record):
        path = tmp_path if name == "" else tmp_path / "runs" / name
        directory = RunDirectory(path)
        directory.record |= record
        directory.save()
        ledger = Ledger(path, SystemClock(), 1)
        for number, (fit, event, *more) in enumerate(events):
            more = more[0] if more else {}
            until = "2024-05-02T00:00:00+00:00"
            ledger.append(make_event(event, fit=fit, global_step=number, until=until, reason=event, **more))
        ledger.close()
        return path

    return write


def test_states_of_all_fits_of_all_runs_are_read(command, tmp_path):
    command("", (0, "started"), (0, "finished"), (1, "started"), (1, "paused"))
    other = command("b", (0, "started"))
    seen = Trainings.of(tmp_path)
    assert {key: state.name for key, state in seen.states.items()} == {
        (tmp_path, 0): "finished",
        (tmp_path, 1): "paused",
        (other, 0): "started",
    }
    assert list(seen.paused) == [(tmp_path, 1)]
    assert set(seen.broken(seen.states)) == {(other, 0)}
    assert (sum(history.attempts for history in seen.histories.values()), seen.steps) == (2, 1 + 3 + 0)
    assert not seen.are_finished
    described = {key: seen.states[key] for key in ((tmp_path, 1), (other, 0))}
    assert describe_fits(described) == f"{tmp_path}, fit 1, at step 3; {other}, at step 0"
    before = seen
    command("b", (0, "finished"))
    assert list(Trainings.of(tmp_path).since(before)) == [(other, 0)]


def test_failed_fit_is_broken_unless_the_script_handled_it(command, tmp_path):
    handled = command("handled", (0, "started"), (0, "failed"), (None, "ended"))
    thread = command("thread", (0, "started"), (0, "failed", {"thread": "Thread-1"}), (None, "ended"))
    died = command("died", (0, "started"), (0, "failed"))
    seen = Trainings.of(tmp_path)
    assert set(seen.broken(seen.states)) == {(thread, 0), (died, 0)}
    assert (handled, 0) in seen.states


def test_paused_and_claimed_fits_are_not_continued(command, tmp_path):
    paused = command("paused", (0, "started"), (0, "paused"))
    refused = command("refused", (0, "started"), claimed_in="s/2")
    command("of an earlier attempt", (0, "started"), claimed_in="s/1")
    command("finished", (0, "finished"), claimed_in="s/2")
    seen = Trainings.of(tmp_path)
    assert set(seen.not_continued(set(), "s/2")) == {(paused, 0), (refused, 0)}
    assert set(seen.not_continued({(paused, 0)}, "s/2")) == {(refused, 0)}


def test_finished_training_is_restored_if_its_final_state_exists(command, tmp_path):
    command("", (0, "finished"))
    assert Trainings.of(tmp_path).are_finished
    assert not Trainings.of(tmp_path).are_restored
    (tmp_path / "checkpoints" / "fit0-final.ckpt").touch()
    assert Trainings.of(tmp_path).are_restored
    assert not Trainings.of(tmp_path / "nothing").are_finished


def test_record_contains_no_environment_variables(tmp_path):
    write_command(tmp_path, LOOP, 0)
    assert set(json.loads((tmp_path / "command.json").read_text())) == {
        "words", "directory", "clock", "pid", "exit_code"
    }  # fmt: skip
