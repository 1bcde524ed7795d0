"""Planned exits in real trainings on a simulated clock: who restarts, where a run may exit, and what is counted."""

import logging
from datetime import datetime, timedelta

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_green import EmissionsTracker, RunPausedExit
from lightning_green.ledger.events import AllocationKept
from lightning_green.ledger.ledger import Ledger
from lightning_green.run.coordinator import close_current_run
from lightning_green.run.pause_rule import PauseAt, PauseRule
from tests.callbacks.green_kit import BATCHES, DIRTY_THEN_CLEAN, START, block, clock, events, scheduler, states, train
from tests.helpers.traces import write_trace


@pytest.fixture
def trace(tmp_path):
    return write_trace(tmp_path / "trace.csv", DIRTY_THEN_CLEAN)


def leave(tmp_path, trace, **given):
    with pytest.raises(SystemExit) as left:
        train(tmp_path, scheduler(trace, **given))
    close_current_run()
    return left.value.code


def test_by_hand_auto_never_leaves(tmp_path, trace):
    train(tmp_path, scheduler(trace, hold_power=1.0))  # holding does not pay, and nobody would start it again
    assert states(tmp_path) == {"running"}
    assert events(tmp_path, "paused") == []


def test_exit_by_hand_prints_the_line_that_continues_it(tmp_path, trace, caplog, monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "--lr", "0.1"])
    monkeypatch.setattr("sys.orig_argv", ["python", "train.py", "--lr", "0.1"])
    caplog.set_level(logging.INFO)
    assert leave(tmp_path, trace, on_pause="exit") == 75
    assert block(caplog)["Pauses"] == "exit (as requested; restart it by hand)"
    assert (
        "Lightning Green: exiting until 2024-05-02 04:00 UTC. To continue, run: python train.py --lr 0.1" in caplog.text
    )
    caplog.clear()

    later = clock()
    (run,) = (tmp_path / "lightning_green").iterdir()
    later.bind(run)
    later.sleep(3.5 * 3600)  # the user comes back in the clean hours
    trainer, weights = train(tmp_path, scheduler(trace, on_pause="exit"))
    assert "attempt 2, continued from step" in block(caplog)["Folder"]
    assert trainer.global_step == BATCHES
    assert [r["event"] for r in events(tmp_path) if r["event"] in ("started", "paused", "finished")] == [
        "started",
        "paused",
        "started",
        "finished",
    ]
    assert {record["deadline"] for record in events(tmp_path, "decision")} == {
        (START + timedelta(hours=20)).isoformat()  # of the first start
    }
    close_current_run()
    assert weights == train(tmp_path / "without")[1]


@pytest.mark.parametrize(("allocation", "later_allocation"), [("", ""), ("job 7", "job 7"), ("job 7", "job 8")])
def test_devices_of_a_kept_allocation_draw_idle_power_after_an_exit(
    tmp_path, trace, monkeypatch, allocation, later_allocation
):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "1")
    monkeypatch.setenv("LIGHTNING_GREEN_ALLOCATION", allocation)
    assert leave(tmp_path, trace, on_pause="exit") == 75
    later = clock()
    (run,) = (tmp_path / "lightning_green").iterdir()
    later.bind(run)
    later.sleep(5 * 3600)
    monkeypatch.setenv("LIGHTNING_GREEN_ALLOCATION", later_allocation)
    tracker = EmissionsTracker()
    train(tmp_path, scheduler(trace, on_pause="exit"), tracker)
    summary, idle = tracker.summary(), events(tmp_path, "devices_idle")
    waited = summary["carbon/hours_waited"]
    assert waited > 4.0
    if not allocation or later_allocation != allocation:  # released, at a time that is not known
        assert idle == []
        assert "energy/unmetered_kwh" not in summary
        return
    kwh = 0.1 * 0.3 * waited  # a tenth of 300 W
    assert idle[0]["idle_joules"] == pytest.approx(kwh * 3.6e6)
    assert summary["energy/unmetered_kwh"] == pytest.approx(kwh)
    assert summary["energy/held_kwh"] == pytest.approx(kwh)
    assert summary["energy/quality"]["unmetered"] == "modelled"
    until = datetime.fromisoformat(idle[0]["until"])
    since = datetime.fromisoformat(idle[0]["since"])
    dirty = (START + timedelta(hours=4) - since).total_seconds() / 3600
    mean = (600 * dirty + 50 * (waited - dirty)) / waited
    assert (until - since).total_seconds() / 3600 == pytest.approx(waited)
    assert idle[0]["idle_intensity"]["value"] == pytest.approx(mean)
    work = summary["carbon/gco2e"] - kwh * mean
    assert summary["carbon/counterfactual_gco2e"] > work  # all of it in the dirty hours, without idle energy
    assert summary["carbon/saving_pct"] == pytest.approx(
        100 * (1 - summary["carbon/gco2e"] / summary["carbon/counterfactual_gco2e"])
    )


@pytest.mark.parametrize(("job", "is_recorded"), [("7", True), ("8", True), ("7", False)])
def test_devices_whose_release_was_refused_draw_idle_power(tmp_path, trace, monkeypatch, job, is_recorded):
    for name, value in {"SUPERVISED": "1", "ALLOCATION": "", "RELEASES": "SLURM"}.items():
        monkeypatch.setenv(f"LIGHTNING_GREEN_{name}", value)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert leave(tmp_path, trace, on_pause="exit") == 75
    (exit_event,) = events(tmp_path, "paused")
    assert exit_event["idle_watts"] == pytest.approx(30.0)
    since, later = datetime.fromisoformat(exit_event["time_utc"]), clock()
    (run,) = (tmp_path / "lightning_green").iterdir()
    later.bind(run)
    if is_recorded:  # two attempts, the second one an hour later, and the times overlap
        for begin, end in ((-1, 1), (0, 2)):
            times = {"since": since + timedelta(hours=begin), "until": since + timedelta(hours=end)}
            ledger = Ledger(run, later, 1)
            ledger.append(AllocationKept(allocation="SLURM job 7", state="out", **times))
            ledger.close()
    later.sleep(5 * 3600)
    monkeypatch.setenv("SLURM_JOB_ID", job)
    tracker = EmissionsTracker()
    train(tmp_path, scheduler(trace, on_pause="exit"), tracker)
    summary, idle = tracker.summary(), events(tmp_path, "devices_idle")
    if not is_recorded:  # the exit has released them
        assert idle == []
        return
    hours = summary["carbon/hours_waited"] if job == "7" else 2.0  # the job has ended at a time that is not known
    assert idle[0]["idle_joules"] == pytest.approx(30.0 * 3600 * hours)
    assert datetime.fromisoformat(idle[0]["until"]) - since == pytest.approx(
        timedelta(hours=hours), abs=timedelta(seconds=1)
    )
    assert summary["energy/unmetered_kwh"] == pytest.approx(0.03 * hours)


def test_planned_exit_is_no_failure_for_callbacks_and_loggers(tmp_path, trace):
    calls = []

    class Mail(pl.Callback):
        def on_exception(self, trainer, pl_module, exception):
            calls.append(("on_exception", type(exception)))

        def teardown(self, trainer, pl_module, stage):
            calls.append(("teardown", stage))

    logger = CSVLogger(tmp_path)
    logger.finalize = lambda status: calls.append(("finalize", status))
    with pytest.raises(RunPausedExit) as paused:
        train(tmp_path, scheduler(trace, on_pause="exit"), Mail(), logger=logger)
    close_current_run()
    assert paused.value.code == 75
    assert calls == [("teardown", "fit")]


def test_under_the_supervisor_auto_leaves_where_that_pays(tmp_path, trace, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    assert leave(tmp_path, trace, hold_power=1.0) == 75
    (paused,) = events(tmp_path, "paused")
    assert paused["until"] == (START + timedelta(hours=4)).isoformat()
    assert paused["job"]["deadline"] == (START + timedelta(hours=20)).isoformat()
    assert paused["grid"]["class_path"].endswith("TraceSignal")


@pytest.mark.parametrize("supervised", [True, False])
def test_hold_that_draws_more_than_assumed_becomes_an_exit_or_ends(tmp_path, monkeypatch, supervised):
    if supervised:
        monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    monkeypatch.setenv("LIGHTNING_GREEN_ALLOCATION", "")
    trace = write_trace(tmp_path / "trace.csv", [600.0] * 8 + [50.0] * 16)
    monkeypatch.setattr(  # sensors need a minute of real time
        "lightning_green.callbacks._plan_maker.measured_hold_power",
        lambda totals: 0.9 if totals.seconds_by_state["held"] >= 60.0 else None,
    )
    given = {"hold_power": "measured", "resume_cost": 20.0}
    if supervised:
        assert leave(tmp_path, trace, **given) == 75
        (paused,) = events(tmp_path, "paused")
        assert paused["job"]["hold_power"] == pytest.approx(0.9)
    else:
        train(tmp_path, scheduler(trace, **given))
    entered = [record for record in events(tmp_path, "state") if record["state"] == "held"]
    assert len(entered) == 1
    began = datetime.fromisoformat(entered[0]["time_utc"])
    later = [record for record in events(tmp_path, "decision") if datetime.fromisoformat(record["time_utc"]) > began]
    changed = next(record for record in later if record["action"] != "hold")
    assert changed["action"] == ("exit" if supervised else "run")
    # The hour that the plan was made for ends at 02:00.
    assert datetime.fromisoformat(changed["time_utc"]) == START + timedelta(hours=1, minutes=15)


def test_return_time_is_measured_over_the_starts_of_the_run(tmp_path, trace, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("LIGHTNING_GREEN_ALLOCATION", "")
    times = clock(seconds_per_restart=1200.0)
    assert leave(tmp_path, trace, hold_power=1.0, clock=times) == 75
    (paused,) = events(tmp_path, "paused")
    assert (paused["job"]["return_time"], paused["job"]["out_power"]) == (0.0, 0.0)
    assert paused["startup_seconds"] == 0.0, "a simulated clock has no time for the first start"
    (run,) = (tmp_path / "lightning_green").iterdir()
    later = clock(seconds_per_restart=1200.0)
    later.bind(run)
    later.sleep(3600.0)  # still in the dirty hours
    assert leave(tmp_path, trace, hold_power=1.0, clock=clock(seconds_per_restart=1200.0)) == 75
    paused = events(tmp_path, "paused")[-1]
    assert paused["startup_seconds"] == pytest.approx(1200.0)
    assert paused["job"]["return_time"] == pytest.approx(1 / 3)


def test_stated_return_time_and_a_kept_allocation_are_part_of_the_job(tmp_path, trace, monkeypatch, caplog):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("HOSTNAME", "trainer-0")
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    caplog.set_level(logging.INFO)
    assert leave(tmp_path, trace, hold_power=0.1, return_time="30min", on_pause="exit") == 75
    (paused,) = events(tmp_path, "paused")
    assert (paused["job"]["return_time"], paused["job"]["out_power"]) == (0.5, 0.1)
    assert "the Kubernetes pod trainer-0 keeps its devices" in block(caplog)["Pauses"]


def test_exits_at_the_end_of_an_epoch_where_only_that_is_exact(tmp_path, trace, monkeypatch, caplog):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    monkeypatch.setenv("LIGHTNING_GREEN_PAUSE_RULE", "epoch: a counter is not restored")
    caplog.set_level(logging.INFO)
    assert leave(tmp_path, trace, hold_power=1.0) == 75
    assert [record["global_step"] for record in events(tmp_path, "paused")] == [12]  # the grid is dirty from step 0 on
    assert {tuple(record["position"]) for record in events(tmp_path, "checkpoint")} == {(1, 0)}
    line = "The run is saved, and exits, at the end of an epoch only: a counter is not restored."
    assert line in caplog.text
    assert line in {record["reason"] for record in events(tmp_path, "warning")}


def test_exits_at_the_end_of_an_epoch_if_only_that_is_exact_by_what_the_batches_show(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    known = PauseRule(PauseAt.EPOCH, "the samples draw in workers")

    class Batches(pl.Callback):
        seen = 0

        def on_train_batch_start(self, *_):
            self.seen += 1

    batches = Batches()
    monkeypatch.setattr(
        "lightning_green.run.saved_state.rule_of_loaders", lambda _: known if batches.seen >= 18 else PauseRule()
    )
    dirty = write_trace(
        tmp_path / "dirty.csv", [600 if 3 <= hour < 9 else 50 for hour in range(48)]
    )  # in the second epoch
    with pytest.raises(SystemExit):
        train(tmp_path, scheduler(dirty, hold_power=1.0), batches, max_epochs=4)
    close_current_run()
    assert [record["global_step"] for record in events(tmp_path, "paused")] == [24]


def test_never_exits_where_no_resume_is_exact(tmp_path, trace, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    monkeypatch.setenv("LIGHTNING_GREEN_PAUSE_RULE", "never: it differs")
    train(tmp_path, scheduler(trace, hold_power=1.0))
    assert events(tmp_path, "paused") == events(tmp_path, "checkpoint") == []


def test_hold_never_leaves(tmp_path, trace, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    train(tmp_path, scheduler(trace, on_pause="hold"))
    assert events(tmp_path, "paused") == []
    assert "held" in states(tmp_path)


def test_without_checkpointing_it_holds_and_never_exits(tmp_path, trace, caplog, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_SUPERVISED", "4711")
    caplog.set_level(logging.INFO)
    train(tmp_path, scheduler(trace), enable_checkpointing=False)
    assert block(caplog)["Pauses"] == "hold (no exit: Trainer(enable_checkpointing=False))"
    assert events(tmp_path, "paused") == []
    assert "held" in states(tmp_path)
    assert list(tmp_path.rglob("*.ckpt")) == []
