"""Replay a recorded year under several policies and compare their emissions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lightning_green.backtest.policies import Policy
from lightning_green.backtest.registry import POLICIES, build_policy
from lightning_green.backtest.replay import optimal_policy, replay
from lightning_green.backtest.results import OPTIMAL, RUN_NOW, Figures, summarize
from lightning_green.backtest.scenario import Scenario
from lightning_green.backtest.simulator import Simulator
from lightning_green.backtest.zone_archive import ZoneArchive

NEEDS_THROTTLE = "static_throttle"


@dataclass(frozen=True)
class Backtest(Scenario):
    """Replay a job over a recorded year under every policy. The arguments are those of `Scenario`.

    Examples:
        ```python
        from pathlib import Path
        from lightning_green.backtest import Backtest, read_archive

        archive = read_archive(Path("DE_2021.csv"), Path("DE_2021_96h.csv"))
        result = Backtest(work_hours=24, window_hours=48).run(archive)
        print(result["planner"]["saving_pct"])
        ```

    """

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the policies that apply: all registered ones and ``"optimal"``."""
        return tuple(name for name in (*POLICIES, OPTIMAL) if self.throttle or name != NEEDS_THROTTLE)

    def run(self, archive: ZoneArchive, names: Iterable[str] | None = None) -> Figures:
        """Return the figures of `summarize` for each policy.

        Args:
            archive: Recorded intensities and forecasts.
            names: Policies to compare; None for all. ``"run_now"`` and ``"optimal"`` are always included.

        Raises:
            ValueError: If the archive is too short for a single run, or a policy is unknown.

        """
        outcomes = self.outcomes(archive, names)
        order = [name for name in (*POLICIES, OPTIMAL) if name in outcomes]
        return summarize({name: outcomes[name] for name in order}, self)

    def outcomes(self, archive: ZoneArchive, names: Iterable[str] | None = None) -> dict[str, list[Simulator]]:
        """Return the finished runs under each policy. Arguments and errors are those of `run`."""
        starts = self.starts(archive)
        if not starts:
            raise ValueError(
                f"{archive.zone} has {len(archive.actual)} recorded hours, too few for a run of "
                f"{self.window_hours:g} h (without forecasts, seven days of history are needed before the first run)."
            )
        outcomes = {}
        for name in dict.fromkeys((*(names or self.names), RUN_NOW, OPTIMAL)):
            if name == OPTIMAL:
                outcomes[name] = [self.replay(archive, start, optimal_policy(self, archive, start)) for start in starts]
            else:
                policy = build_policy(name)
                outcomes[name] = [self.replay(archive, start, policy) for start in starts]
        return outcomes

    def replay(self, archive: ZoneArchive, start: int, policy: Policy) -> Simulator:
        """Return one finished run under ``policy``; see `replay`."""
        return replay(self, archive, start, policy)
