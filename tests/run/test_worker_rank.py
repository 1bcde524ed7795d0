"""A rank other than 0 follows the commands of rank 0."""

from types import SimpleNamespace

import pytest

from lightning_green.ledger.nodes import Node
from lightning_green.run.coordinator import nonzero_rank_session
from lightning_green.run.worker_rank import WorkerRank
from lightning_green.strategies.control_group import Command
from tests.helpers.ledgers import read_records
from tests.helpers.scripted_ranks import ScriptedRanks
from tests.helpers.sessions import clock, options

CONTINUE = (Command.CONTINUE,)


@pytest.fixture
def session(tmp_path):
    """Return the session of the first process of another node; it writes a ledger."""
    session = nonzero_rank_session(Node(1, 2, 0), options(), clock())
    session.start()
    session.join(tmp_path, attempt=1, fit=0)
    session.announce()
    yield session
    session.end()


def follow(session, *commands, dump=None, report=None, on_level=None):
    ranks = ScriptedRanks(1, received=commands)
    trainer = SimpleNamespace(callbacks=[], _last_val_time=100.0)
    worker = WorkerRank(session, trainer, ranks)
    worker.on_level = on_level
    return worker.follow(dump or (lambda number: None), report or (lambda: None)), trainer


def written(folder):
    records = read_records(folder)[1:]  # without the start
    return [(record["event"], record["state"], record["phase"]) for record in records]


def test_continue_writes_nothing(session, tmp_path):
    ends, _ = follow(session, CONTINUE)
    assert ends is None
    assert written(tmp_path) == []


@pytest.mark.parametrize(
    ("command", "number", "event"), [(Command.EXIT, 0, "node_paused"), (Command.INTERRUPT, 15, "node_interrupted")]
)
def test_end_of_the_fit_is_returned_and_recorded(session, tmp_path, command, number, event):
    ends, _ = follow(session, (command, number))
    assert ends == (command, number)
    assert written(tmp_path) == [(event, "running", "training")]


@pytest.mark.parametrize(("periodic", "phase"), [(1, "checkpoint"), (0, "restart")])
def test_checkpoint_is_dumped_in_the_phase_of_rank_zero(session, tmp_path, periodic, phase):
    numbers = []
    follow(session, (Command.SAVE, 7, periodic), CONTINUE, dump=numbers.append)
    assert numbers == [7]
    assert written(tmp_path) == [("phase", "running", phase), ("phase", "running", "training")]


def test_hold_draws_the_power_of_the_hold_until_it_is_over(session, tmp_path):
    reports = []

    def report():
        reports.append(session.meter.read()["other"].joules)
        session.clock.sleep(10.0)

    before = session.meter.read()["other"].joules
    commands = [(Command.HOLD, 0.25), (Command.HEARTBEAT,), (Command.HEARTBEAT,), (Command.RESUME, 20.0), CONTINUE]
    _, trainer = follow(session, *commands, report=report)
    assert reports == [before, pytest.approx(before + 0.25 * 300.0 * 10.0)]
    assert written(tmp_path) == [("state", "held", "held"), ("state", "running", "training")]
    assert trainer._last_val_time == 120.0  # the hold does not count
    held = session.meter.read()["other"].joules
    session.clock.sleep(10.0)
    assert session.meter.read()["other"].joules == pytest.approx(held + 300.0 * 10.0)


def test_level_is_set_on_the_first_process_of_a_node_only(session):
    levels = []
    command = (Command.SET_LEVEL, 2, 0.5, 0.75)
    follow(session, command, CONTINUE, on_level=lambda *level: levels.append(level))
    follow(session, command, CONTINUE)
    assert levels == [(2, 0.5, 0.75)]


def test_process_that_is_not_part_of_the_history_follows_and_writes_nothing(monkeypatch):
    session = nonzero_rank_session(Node(1, 2, 1), options(), clock())
    session.start()
    numbers, events = [], []
    monkeypatch.setattr(session.recorder.account, "add", events.append)
    commands = [(Command.SAVE, 7, 1), (Command.HOLD, 0.25), (Command.RESUME, 1.0), (Command.EXIT,)]
    ends, _ = follow(session, *commands, dump=numbers.append)
    assert (ends, numbers) == ((Command.EXIT, 0), [7])
    assert events == []
    session.end()
