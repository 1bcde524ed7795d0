"""The use of a run while it trains: costs that stay, limits that cannot be read, checks that hang."""

import threading

import pytest

from lightning_green.budget import BudgetDirectory, BudgetError, Limits
from lightning_green.budget.watch import BudgetWatch, RunId
from lightning_green.energy.meter import Energy
from lightning_green.ledger.events import BudgetChecked, Sample
from lightning_green.ledger.ledger import Ledger
from lightning_green.ledger.measurement import Measurement
from lightning_green.planning.prices import PriceSeries
from lightning_green.utilities.clock import SimulatedClock
from tests.budget.test_directory import HOUR_JOULES, PRICES, run

LIMITS = Limits(cost=9.0)


@pytest.fixture
def folder(tmp_path):
    """A run of four hours, 0.45 kWh each after PUE."""
    run(tmp_path / "run", 4)
    return tmp_path / "run"


def watch(folder, prices, directory=None, **given):
    return BudgetWatch(LIMITS, RunId("train-1", folder, **given), None, prices, directory)


def append(folder, *events):
    clock = SimulatedClock("2024-05-02T05:00:00+00:00")
    ledger = Ledger(folder, clock, 1)
    for event in events:
        ledger.append(event)
    ledger.close()


def fifth_hour():
    return Sample(
        measured=Measurement({"other": Energy(5 * HOUR_JOULES, "measured")}, pue=1.5), state="running", phase="training"
    )


@pytest.mark.parametrize("later", [0.1, None])
def test_known_cost_stays_when_the_prices_change(tmp_path, folder, later):
    shared = BudgetDirectory(tmp_path / "shared")
    assert watch(folder, PRICES, shared).update().usage.cost == pytest.approx(0.9)
    append(folder, fifth_hour())
    usage = watch(folder, None if later is None else PriceSeries(constant=later), shared).update().usage
    assert usage.cost == pytest.approx(0.9 + 0.45 * (later or 0.0))
    assert usage.unknown_price_kwh == pytest.approx(0.0 if later else 0.45)


def priced(first):
    names = ("cost", "priced_kwh", "unknown_price_kwh")
    return BudgetChecked(priced={name: getattr(first.own, name) for name in names})


def test_known_cost_of_a_run_without_a_shared_directory_is_in_its_ledger(folder):
    first = watch(folder, PRICES)
    first.update()
    append(folder, priced(first), fifth_hour())
    assert watch(folder, PriceSeries(constant=0.1)).update().usage.cost == pytest.approx(0.9 + 0.045)


def test_energy_of_a_start_without_prices_is_priced_by_the_next_one(folder):
    first = watch(folder, PRICES)
    first.update()
    append(folder, priced(first), fifth_hour())
    second = watch(folder, None)
    assert second.update().usage.unknown_price_kwh == pytest.approx(0.45)
    append(folder, priced(second))
    usage = watch(folder, PriceSeries(constant=0.1)).update().usage
    assert (usage.cost, usage.unknown_price_kwh) == (pytest.approx(0.945), 0.0)


def test_energy_is_priced_if_no_price_was_known(tmp_path, folder):
    shared = BudgetDirectory(tmp_path / "shared")
    assert watch(folder, None, shared).update().usage.unknown_price_kwh == pytest.approx(1.8)
    assert watch(folder, PRICES, shared).update().usage.cost == pytest.approx(0.9)


@pytest.mark.parametrize("content", ["{", None])
def test_damaged_or_other_limits_do_not_end_an_automatic_restart(tmp_path, folder, content):
    shared = BudgetDirectory(tmp_path / "shared")
    shared.join(Limits(cost=1.0))
    if content is not None:
        (shared.path / "budget.json").write_text(content)
    else:
        with pytest.raises(BudgetError, match="this run was given"):
            watch(folder, PRICES, shared)
    found = watch(folder, PRICES, shared, is_restarted=True)
    assert (found.problem or found.conflict) is not None
    assert found.update().limits == (LIMITS if content else Limits(cost=1.0))


def test_damaged_limits_are_an_error_for_a_start_without_limits(tmp_path, folder):
    shared = BudgetDirectory(tmp_path / "shared")
    shared.join(LIMITS)
    (shared.path / "budget.json").write_text("{")
    with pytest.raises(BudgetError, match="is damaged"):
        BudgetWatch(Limits(), RunId("train-1", folder), directory=shared)
    again = BudgetWatch(Limits(), RunId("train-1", folder, is_restarted=True), directory=shared)
    assert not again.update().is_used


def test_event_is_added_while_a_check_hangs(tmp_path):
    entered, release, returned = threading.Event(), threading.Event(), []

    class Hanging(BudgetDirectory):
        def read(self, *_):
            entered.set()
            returned.append(release.wait(60))
            raise OSError(5, "Input/output error")

    found = watch(None, PRICES, Hanging(tmp_path / "shared"))
    check = threading.Thread(target=found.update)
    check.start()
    assert entered.wait(60)
    found.add(fifth_hour())
    assert not returned
    release.set()
    check.join()
