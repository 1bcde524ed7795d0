"""Budgets of a run and of several, on a simulated clock: 300 W, ten minutes a batch, so 0.05 kWh each."""

import json
import os
import threading
from contextlib import suppress

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_green import CarbonScheduler, EmissionsTracker, EnergyBudget
from lightning_green.budget import BudgetDirectory, BudgetError, Limits, read_budget
from lightning_green.grid import ConstantSignal
from lightning_green.ledger.account import total
from lightning_green.ledger.ledger import read_ledger
from lightning_green.ledger.run_directory import RESTARTED_VARIABLE, RUN_DIR_VARIABLE
from lightning_green.report.run_status import read_run_status
from lightning_green.report.status import describe_run
from lightning_green.run.coordinator import close_current_run
from tests.callbacks.green_kit import BATCHES, Net, clock, events, tracker, train

BATCH = 0.05  # kWh


def budget(kwh=None, **given):
    """Return a budget that is checked after each batch."""
    return EnergyBudget(kwh, **{"meter": 300.0, "clock": clock(), "check_every": "10m", **given})


def paused(folder, *callbacks, **options):
    """Train until a planned exit."""
    with pytest.raises(SystemExit) as ended:
        train(folder, *callbacks, **options)
    assert ended.value.code == 75
    close_current_run()


def only_run(folder):
    (found,) = folder.rglob("run.json")
    return found.parent


@pytest.mark.parametrize("limit", [{"kwh": 0.5}, {"gco2e": 50.0, "grid": 100.0}, {"cost": 0.15, "price": 0.3}])
def test_stop_ends_the_training_with_a_validation(tmp_path, limit, caplog):
    caplog.set_level("INFO")
    validated = []
    watch = budget(**limit)

    class Validated(Net):
        def on_validation_end(self):
            validated.append(self.trainer.global_step)

    trainer, _ = train(tmp_path, watch, validate=True)
    assert trainer.global_step == 11  # ten batches are 0.5 kWh, and it stops after the next one
    assert watch.status.fraction == pytest.approx(1.1)
    finished = events(tmp_path, "finished")
    assert [one["reason"] for one in finished] == ["11 steps done; a budget is used"]
    assert [one["global_step"] for one in events(tmp_path, "validation")] == [11]
    assert [one.get("action") for one in events(tmp_path, "budget")] == [None, "warn", "stop", None]
    assert caplog.text.count("The training stops after the next batch") == 1


def test_a_budget_that_is_not_used_changes_nothing(tmp_path):
    plain = train(tmp_path / "plain")[1]
    trainer, weights = train(tmp_path / "budget", budget(100.0))
    assert (trainer.global_step, weights) == (BATCHES, plain)
    (finished,) = events(tmp_path / "budget", "finished")
    assert finished["reason"] == f"{BATCHES} steps done"
    assert not events(tmp_path / "budget", "warning")


def test_warning_is_logged_and_recorded_once_also_after_a_restart(tmp_path, caplog):
    paused(tmp_path, budget(0.5, on_exceeded="pause"))
    paused(tmp_path, budget(0.5, on_exceeded="pause"))  # not raised
    warnings = [one for one in events(tmp_path, "warning") if "of a budget is used" in one["reason"]]
    assert [one["global_step"] for one in warnings] == [8]
    assert "80.0 % of a budget is used: 0.4000 kWh of 0.5000 kWh (80.0 %)." in caplog.text
    assert caplog.text.count("80.0 % of a budget is used") == 1


@pytest.mark.parametrize("validate", [False, True])
def test_paused_run_continues_with_a_higher_limit_and_has_the_same_weights(tmp_path, validate, caplog):
    caplog.set_level("INFO")
    plain = train(tmp_path / "plain", budget(9.0), validate=validate)[1]
    close_current_run()
    folder = tmp_path / "paused"
    paused(folder, budget(0.35, on_exceeded="pause"), validate=validate)
    assert "Raise `kwh` of EnergyBudget, and start the same command again. To continue, run:" in caplog.text
    status = read_run_status(only_run(folder))
    assert (status.state.name, status.state.until, status.state.step) == ("exited", None, 7)
    assert "exited at step 7: A budget is used: 0.3500 kWh of 0.3500 kWh (100.0 %). Raise `kwh`" in describe_run(status)
    paused(folder, budget(0.8, on_exceeded="pause"), validate=validate)
    watch = budget(9.0, on_exceeded="pause")
    trainer, weights = train(folder, watch, validate=validate)
    assert (trainer.global_step, weights) == (BATCHES, plain)
    assert [one["restored"] for one in events(folder, "started")[1:]] == ["step 7", "step 16"]
    assert watch.status.usage.kwh == pytest.approx(total(read_ledger(only_run(folder))).kwh, rel=1e-9)
    assert watch.status.usage.kwh > BATCHES * BATCH  # restarts included


def test_pause_without_checkpoints_stops(tmp_path, caplog):
    caplog.set_level("INFO")
    trainer, _ = train(tmp_path, budget(0.5, on_exceeded="pause"), enable_checkpointing=False)
    assert trainer.global_step == 11
    assert "then stop, because the training state is not saved" in caplog.text
    assert "stops instead of being paused" in caplog.text


def test_min_steps_of_the_trainer_are_kept(tmp_path):
    trainer, _ = train(tmp_path, budget(0.1), min_steps=20)
    assert trainer.global_step == 20


def test_throttle_lowers_the_power_and_continues(tmp_path):
    watch = budget(0.3, on_exceeded="throttle", throttle="0.5:0.8")
    trainer, _ = train(tmp_path, watch)
    assert trainer.global_step == BATCHES
    (entered,) = [one for one in events(tmp_path, "state") if one["state"] == "throttled"]
    assert (entered["power"], entered["speed"]) == (0.5, 0.8)
    first = entered["global_step"]
    assert first in (6, 7)
    spent = first * BATCH + (BATCHES - first) * BATCH * 0.5 / 0.8
    assert watch.status.usage.kwh == pytest.approx(spent, rel=0.05)


@pytest.mark.parametrize("first", [True, False])
def test_throttle_of_a_scheduler_is_used(tmp_path, first):
    own = CarbonScheduler(throttle="0.5:0.8", grid=100.0, deadline="40h")
    watch = budget(0.3, on_exceeded="throttle")
    train(tmp_path, *((watch, own) if first else (own, watch)))
    state, *more = [one for one in events(tmp_path, "state") if one["state"] == "throttled"]
    assert (state["power"], more) == (0.5, [])


@pytest.mark.parametrize("first", [True, False])
def test_budget_comes_before_the_plan_of_a_scheduler(tmp_path, first):
    intensities = [600.0] * 20 + [50.0] * 40
    trace = tmp_path / "trace.csv"
    rows = [f"2024-05-0{2 + hour // 24}T{hour % 24:02}:00:00Z,{value}" for hour, value in enumerate(intensities)]
    trace.write_text("\n".join(["datetime,carbon_intensity", *rows]))
    scheduler = CarbonScheduler(str(trace), deadline="50h", on_pause="hold", hold_power=0.05, zone="DE")
    watch = budget(0.35)
    trainer, _ = train(tmp_path, *((watch, scheduler) if first else (scheduler, watch)))
    assert trainer.global_step < BATCHES
    held = [one for one in events(tmp_path, "state") if one["state"] == "held"]
    assert held  # 0.015 kWh an hour, so until the clean hours the hold uses 0.2 kWh
    assert watch.status.usage.kwh <= 0.35 + 2 * BATCH + 1e-9


def test_metrics_and_settings_are_logged(tmp_path):
    logger = CSVLogger(tmp_path)
    train(
        tmp_path,
        tracker(clock=None),
        budget(0.5),
        budget(1.0, directory=tmp_path / "shared", clock=None),
        logger=logger,
    )
    text = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text()
    assert {"budget/used_pct", "budget/directory_used_pct"} <= set(text.splitlines()[0].split(","))


def test_runs_of_a_directory_share_the_budget(tmp_path, caplog):
    shared = tmp_path / "shared"
    steps = []
    for number in range(3):
        watch = budget(2.0, directory=shared)
        steps.append(train(tmp_path / str(number), watch)[0].global_step)
        close_current_run()
    assert steps == [24, 17, 1]  # the third one finds it used
    status = read_budget(shared)
    ledgers = sum(total(read_ledger(only_run(tmp_path / str(number)))).kwh for number in range(3))
    assert (status.runs, status.usage.kwh) == (3, pytest.approx(ledgers, rel=1e-9))
    assert "by 2 runs in" in caplog.text
    assert f"by 3 runs in {shared}" in describe_run(read_run_status(only_run(tmp_path / "2")))


def test_limits_of_the_directory_apply_to_a_run_without_any(tmp_path):
    BudgetDirectory(tmp_path / "shared").set_limits(Limits(kwh=0.5))
    assert train(tmp_path, budget(directory=tmp_path / "shared"))[0].global_step == 11


def test_limit_that_is_raised_in_the_directory_applies_to_a_script_with_the_old_one(tmp_path):
    shared = tmp_path / "shared"
    paused(tmp_path, budget(0.5, directory=shared, on_exceeded="pause"))
    BudgetDirectory(shared).set_limits(Limits(kwh=9.0))
    assert train(tmp_path, budget(0.5, directory=shared, on_exceeded="pause"))[0].global_step == BATCHES


def test_running_training_uses_a_new_limit_at_its_next_check(tmp_path):
    shared = tmp_path / "shared"

    class Raise(Callback):
        def on_train_batch_end(self, trainer, *_):
            if trainer.global_step == 5:
                BudgetDirectory(shared).set_limits(Limits(kwh=0.8))

    assert train(tmp_path, Raise(), budget(0.5, directory=shared))[0].global_step == 17


def test_conflicting_limits_raise_at_the_start(tmp_path):
    train(tmp_path / "a", budget(0.5, directory=tmp_path / "shared"))
    close_current_run()
    with pytest.raises(BudgetError, match=r"is 0\.5000 kWh, and this run was given 0\.7000 kWh"):
        train(tmp_path / "b", budget(0.7, directory=tmp_path / "shared"))


def test_another_kind_of_emissions_raises_at_the_start(tmp_path):
    average, marginal = ConstantSignal(100.0), ConstantSignal(100.0, kind="marginal/direct")
    train(tmp_path / "a", budget(gco2e=50.0, directory=tmp_path / "shared", grid=average))
    close_current_run()
    with pytest.raises(BudgetError, match="never added up"):
        train(tmp_path / "b", budget(gco2e=50.0, directory=tmp_path / "shared", grid=marginal))


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({}, ValueError, "needs a limit"),
        ({"kwh": 0}, ValueError, "`kwh` should be a number above 0"),
        ({"kwh": float("nan")}, ValueError, "`kwh`"),
        ({"cost": 3.0}, ValueError, "`cost` needs `price`"),
        ({"kwh": 1.0, "on_exceeded": "explode"}, ValueError, "`on_exceeded`"),
        ({"kwh": 1.0, "warn_at": 80}, ValueError, "`warn_at`"),
        ({"kwh": 1.0, "check_every": "0s"}, ValueError, "`check_every`"),
        ({"kwh": 1.0, "directory": 3}, TypeError, "`directory`"),
        ({"kwh": 1.0, "directory": " "}, TypeError, "`directory`"),
        ({"kwh": 1.0, "throttle": "fast"}, ValueError, "`?throttle"),
    ],
)
def test_wrong_arguments_raise(given, error, match):
    with pytest.raises(error, match=match):
        EnergyBudget(**given)


def test_emissions_need_a_grid(tmp_path):
    with pytest.raises(BudgetError, match="needs `grid`"):
        train(tmp_path, budget(gco2e=10.0))
    close_current_run()
    assert train(tmp_path / "b", budget(gco2e=10.0), EmissionsTracker(grid=100.0))[0].global_step == 3


def test_cost_of_a_directory_needs_a_price(tmp_path):
    BudgetDirectory(tmp_path / "shared").set_limits(Limits(cost=1.0))
    with pytest.raises(BudgetError, match="Give `price`"):
        train(tmp_path, budget(directory=tmp_path / "shared"))


@pytest.mark.parametrize(("limits", "missing"), [({"cost": 1.0}, "Give `price`"), ({"gco2e": 50.0}, "needs `grid`")])
def test_limit_that_needs_more_is_a_warning_in_an_automatic_restart(tmp_path, monkeypatch, limits, missing):
    BudgetDirectory(tmp_path / "shared").set_limits(Limits(**limits))
    monkeypatch.setenv(RESTARTED_VARIABLE, "1")
    watch = budget(directory=tmp_path / "shared")
    assert train(tmp_path, watch)[0].global_step == BATCHES
    assert [missing in one["reason"] for one in events(tmp_path, "warning")].count(True) == 1
    assert watch.status.limits == Limits(**limits)


def test_known_emissions_count_in_an_automatic_restart_without_a_grid(tmp_path, monkeypatch):
    trace = tmp_path / "trace.csv"
    rows = [f"2024-05-02T{hour:02}:00:00Z,100" for hour in range(24)]
    trace.write_text("\n".join(["datetime,carbon_intensity", *rows]))
    monkeypatch.setenv(RUN_DIR_VARIABLE, str(tmp_path / "run"))
    paused(tmp_path, budget(0.35, gco2e=500.0, grid=str(trace), zone="DE", on_exceeded="pause"))
    trace.unlink()
    monkeypatch.setenv(RESTARTED_VARIABLE, "1")
    watch = budget(9.0, gco2e=500.0, grid=str(trace), zone="DE", on_exceeded="pause")
    assert train(tmp_path, watch)[0].global_step == BATCHES
    assert watch.status.used["gco2e"] == pytest.approx(35.0)


@pytest.mark.parametrize("shared", [False, True])
def test_cost_before_a_restart_does_not_change_with_the_prices(tmp_path, shared):
    where = {"directory": tmp_path / "shared"} if shared else {}
    paused(tmp_path, budget(0.35, cost=9.0, price=2.0, on_exceeded="pause", **where))
    if shared:
        BudgetDirectory(tmp_path / "shared").set_limits(Limits(kwh=9.0))
    watch = budget(0.35 if shared else 9.0, cost=9.0, price=0.001, on_exceeded="pause", **where)
    assert train(tmp_path, watch)[0].global_step == BATCHES
    assert watch.status.used["cost"] == pytest.approx(0.7, abs=0.01)


def test_prices_and_the_cost_are_recorded(tmp_path):
    train(tmp_path, budget(cost=0.15, price=0.3))
    first, *_, last = events(tmp_path, "budget")
    assert (first["prices"], last["priced"]["cost"]) == ({"constant": 0.3}, pytest.approx(0.165))


def test_damaged_limits_of_the_directory_leave_those_of_the_script(tmp_path, caplog):
    shared = BudgetDirectory(tmp_path / "shared")
    shared.join(Limits(kwh=0.5))
    (shared.path / "budget.json").write_text("{")
    assert train(tmp_path, budget(0.5, directory=shared.path))[0].global_step == 11
    (warning,) = [one for one in events(tmp_path, "warning") if "is damaged" in one["reason"]]
    assert "only what this run has used is compared" in warning["reason"]


def test_training_ends_while_the_file_system_of_the_directory_hangs(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning_green.callbacks._budget_check.MAX_WAIT_SECONDS", 0.2)
    entered, release, returned = threading.Event(), threading.Event(), []

    def hang(*_):
        entered.set()
        returned.append(release.wait(60))
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(BudgetDirectory, "read", hang)
    watch = EnergyBudget(100.0, directory=tmp_path / "shared", meter=300.0)
    try:
        assert train(tmp_path, watch)[0].global_step == BATCHES
        assert entered.is_set()
        assert not returned
        assert [one.get("action") for one in events(tmp_path, "budget")] == [None, None]
    finally:
        release.set()


def test_directory_without_limits_raises(tmp_path):
    with pytest.raises(BudgetError, match="has no limits"):
        train(tmp_path, budget(directory=tmp_path / "shared"))


def test_directory_that_cannot_be_written_warns_once_and_the_run_has_its_own_budget(tmp_path, caplog):
    (tmp_path / "file").write_text("")
    trainer, _ = train(tmp_path, budget(0.5, directory=tmp_path / "file" / "shared"))
    assert trainer.global_step == 11
    assert caplog.text.count("cannot be used (Not a directory)") == 1
    (warning,) = [one for one in events(tmp_path, "warning") if "cannot be used" in one["reason"]]
    assert "only what this run has used is compared" in warning["reason"]


def test_directory_that_vanishes_warns_once_and_is_used_again_when_it_is_back(tmp_path, caplog):
    shared = tmp_path / "shared"

    class Move(Callback):
        def on_train_batch_start(self, trainer, *_):
            if trainer.global_step == 3:
                os.rename(shared, tmp_path / "away")
            elif trainer.global_step == 6:
                os.rename(tmp_path / "away", shared)

    assert train(tmp_path, Move(), budget(0.5, directory=shared))[0].global_step == 11
    assert caplog.text.count("cannot be used (No such file or directory)") == 1
    assert caplog.text.count("can be used again") == 1
    assert read_budget(shared).usage.kwh == pytest.approx(0.55)


def test_run_without_a_run_directory_is_counted(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LIGHTNING_GREEN_RUN_DIR", str(tmp_path / "file" / "run"))
    watch = budget(0.5, cost=9.0, price=0.3, directory=tmp_path / "shared")
    assert train(tmp_path, watch)[0].global_step == 11
    usage = read_budget(tmp_path / "shared").usage
    assert (usage.kwh, usage.cost) == (pytest.approx(0.55), pytest.approx(0.165))


def test_several_fits_of_a_run_share_its_budget(tmp_path):
    first = train(tmp_path, budget(1.5))[0].global_step
    second = train(tmp_path, budget(1.5))[0].global_step
    assert (first, second) == (24, 7)


def test_budget_is_no_early_stopping_of_another_callback(tmp_path):
    stop = EarlyStopping("loss", patience=1, check_on_train_epoch_end=True, min_delta=100.0)
    trainer, _ = train(tmp_path, budget(100.0), stop, max_epochs=9)
    assert trainer.global_step == 24
    assert events(tmp_path, "finished")[0]["reason"] == "24 steps done"


def test_report_of_status_as_json_has_the_budget(tmp_path):
    train(tmp_path, budget(0.5))
    found = json.loads(json.dumps(read_run_status(only_run(tmp_path)).to_json()))["budget"]
    assert found["limits"] == {"kwh": 0.5}
    assert found["used"]["kwh"] == pytest.approx(0.55)


class OwnLoop(Net):
    """Requests its loaders again in each epoch, and has a state that no file can hold."""

    def on_save_checkpoint(self, checkpoint):
        checkpoint["lock"] = threading.Lock()


def test_pause_of_a_training_that_cannot_be_saved_stops(tmp_path, caplog):
    watch = budget(0.5, on_exceeded="pause")
    trainer = pl.Trainer(max_epochs=1, accelerator="cpu", logger=False, default_root_dir=tmp_path, callbacks=[watch],
                         enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=True)  # fmt: skip
    with suppress(TypeError):  # of Lightning's own checkpoint at the end
        trainer.fit(OwnLoop(), DataLoader(TensorDataset(torch.ones(100, 4)), 4))
    assert trainer.global_step == 11
    assert "The training stops instead of being paused" in caplog.text
