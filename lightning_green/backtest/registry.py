"""Policies by name."""

from __future__ import annotations

from lightning_green.backtest.policies import Policy
from lightning_green.utilities.registry import Registry

POLICIES = Registry(
    "lightning_green.policies",
    {
        "run_now": "lightning_green.backtest.policies:run_now",
        "deferred_start": "lightning_green.backtest.policies:deferred_start",
        "lowest_slots": "lightning_green.backtest.policies:lowest_slots",
        "threshold": "lightning_green.backtest.policies:threshold",
        "online": "lightning_green.backtest.policies:online",
        "static_throttle": "lightning_green.backtest.policies:static_throttle",
        "planner": "lightning_green.backtest.planner_policy:PlannerPolicy",
        "planner_no_forecast": "lightning_green.backtest.planner_policy:HistoryOnlyPlannerPolicy",
    },
)
"""Policies by name. Other packages add policies through the entry point group ``lightning_green.policies``.

An entry is a function from an `Observation` to an action and a level, or a class whose instances are such functions. A
class is instantiated without arguments once for every archive.
"""


def build_policy(name: str) -> Policy:
    """Return the policy registered under ``name``, without any state from earlier runs.

    Args:
        name: A key of `POLICIES`.

    Raises:
        TypeError: If the registered object is not callable.
        ValueError: If the name is unknown.

    Examples:
        >>> build_policy("run_now").__name__
        'run_now'

    """
    if name not in POLICIES:
        raise ValueError(f"`policy` should be one of {', '.join(POLICIES)}, got {name!r}.")
    entry = POLICIES[name]
    policy = entry() if isinstance(entry, type) else entry
    if not callable(policy):
        raise TypeError(f"The policy {name!r} should be a function or a class with __call__, got {entry!r}.")
    found: Policy = policy
    return found
