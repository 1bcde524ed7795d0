"""Policies are found by name, also those of other packages."""

from importlib.metadata import EntryPoint

import pytest

from lightning_green.backtest import POLICIES, Backtest, PlannerPolicy, build_policy
from lightning_green.backtest.policies import RUN
from lightning_green.utilities import registry
from tests.helpers.zone_archives import make_archive


def always_run(observation):
    return RUN


class Counting:
    """A policy with state."""

    def __init__(self):
        self.calls = 0

    def __call__(self, observation):
        self.calls += 1
        return RUN


@pytest.fixture
def installed(monkeypatch):
    """Install two policies of another package."""
    points = [
        EntryPoint(name, f"{__name__}:{value}", POLICIES.group)
        for name, value in (("always_run", "always_run"), ("counting", "Counting"), ("wrong", "__name__"))
    ]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == POLICIES.group else [])
    POLICIES.__dict__.pop("_installed", None)
    yield
    POLICIES.__dict__.pop("_installed", None)


def test_class_is_instantiated_for_every_build():
    first, second = build_policy("planner"), build_policy("planner")
    assert isinstance(first, PlannerPolicy)
    assert first is not second
    assert not build_policy("planner_no_forecast").use_forecast


def test_unknown_policy_raises_with_the_choices():
    with pytest.raises(ValueError, match=r"`policy` should be one of run_now, deferred_start.*got 'best'"):
        Backtest().run(make_archive(days=16), ["best"])


@pytest.mark.usefixtures("installed")
def test_policies_of_other_packages_are_replayed():
    assert build_policy("counting") is not build_policy("counting")
    result = Backtest(work_hours=6, window_hours=14, every_days=5).run(
        make_archive(days=16), ["always_run", "counting"]
    )
    assert list(result) == ["run_now", "always_run", "counting", "optimal"]
    assert result["always_run"] == result["counting"] == result["run_now"]


@pytest.mark.usefixtures("installed")
def test_entry_that_is_not_callable_raises():
    with pytest.raises(TypeError, match="The policy 'wrong' should be a function"):
        build_policy("wrong")
