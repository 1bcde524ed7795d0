"""Adds the events of a ledger up to totals."""

from __future__ import annotations

from collections.abc import Iterable

from lightning_green.ledger.events import BetweenFits, Event, Finished, Paused, Started, StateEvent
from lightning_green.ledger.intensity_timeline import IntensityInterval, IntensityTimeline
from lightning_green.ledger.measurement import Measurement
from lightning_green.ledger.segments import Segment, join_neighbors
from lightning_green.ledger.totals import Totals, bounded, sum_totals

# Phases that a run without pauses goes through as well.
_WORK_PHASES = ("startup", "training", "validation", "checkpoint")
_MAX_SEGMENTS = 50_000
"""Number of segments that are kept one by one: nine days, one every 15 s. Then neighbors are joined."""


class Account:
    """Adds the events of one fit to its totals.

    Events of different nodes may come in any order within one start.

    Attributes:
        totals: The totals so far.

    """

    def __init__(self) -> None:
        self.totals = Totals()
        self._last: dict[int, Event] = {}
        self._exited = False
        self._active_time: float | None = None
        self._first_attempt: int | None = None
        self._timeline, self._timeline_attempt = IntensityTimeline(), 0
        self._unsettled: list[tuple[float, float, float]] = []
        self._join_from = 0

    def add(self, event: Event) -> None:
        """Add the next event."""
        if not event.time_utc:  # an event of another version
            return
        totals, at = self.totals, event.timestamp
        if isinstance(event, BetweenFits):
            totals.between_joules += event.between_joules
            return
        if isinstance(event, Started) and not event.node_rank:
            self._start(event, at)
        elif isinstance(event, Paused) and not event.node_rank:
            totals.exits += 1
            self._exited = True
        if event.measured is not None:
            if event.attempt != self._timeline_attempt:
                self.settle()  # with the intensities of the previous start
                self._timeline, self._timeline_attempt = IntensityTimeline(), event.attempt
            self._interval(event, event.measured, at, self._last.get(event.node_rank))
            self._last[event.node_rank] = event
        restored = isinstance(event, Finished) and event.again  # the fit ended when it finished
        if event.node_rank == 0 and not restored:
            totals.last_time = at if totals.last_time is None else max(totals.last_time, at)
            # the supervisor's decisions are made while nothing runs
            if event.measured is not None or isinstance(event, StateEvent):
                self._active_time = totals.last_time

    def settle(self) -> None:
        """Account the energy of other nodes since the last event of rank 0 at the last known intensity."""
        self._settle_until(float("inf"))

    def _start(self, event: Started, at: float) -> None:
        totals, began = self.totals, at - event.startup_s
        if totals.first_start is None:
            totals.first_start, self._first_attempt = began, event.attempt
        elif self._active_time is not None and event.attempt > totals.attempts:
            totals.seconds_by_state["out" if self._exited else "stopped"] += max(0.0, began - self._active_time)
        self._exited = False
        totals.attempts = max(totals.attempts, event.attempt)
        totals.nodes = event.nodes or 1

    def _interval(self, event: Event, measured: Measurement, at: float, previous: Event | None) -> None:
        """Add the time and the energy since the previous event of the node, in the state that it was in."""
        totals, before = self.totals, None if previous is None else previous.measured
        if previous is not None and before is not None and previous.attempt == event.attempt:
            start, state, phase = previous.timestamp, previous.state or "running", previous.phase or "training"
            power, speed, waited_before = before.power, before.speed, before.data_wait_s
        else:
            before = None
            start = at - (event.startup_s if isinstance(event, Started) else 0.0)
            restarts = self._first_attempt is not None and event.attempt > self._first_attempt
            state, phase = "running", "restart" if restarts else "startup"
            power = speed = 1.0
            waited_before = 0.0
        spent = 0.0
        for component, energy in measured.joules.items():
            known = None if before is None else before.joules.get(component)
            joules = max(0.0, energy.joules - (0.0 if known is None else known.joules))
            totals.joules[bounded(totals.joules, component)] += joules
            totals.note_quality(component, energy.quality)
            spent += joules
        state, phase = bounded(totals.joules_by_state, state), bounded(totals.joules_by_phase, phase)
        totals.joules_by_state[state] += spent
        waited = max(0.0, measured.data_wait_s - waited_before)
        share = min(1.0, waited / (at - start)) if phase == "training" and at > start else 0.0
        totals.joules_by_phase[phase] += spent * (1.0 - share)
        if share:
            totals.joules_by_phase["data_wait"] += spent * share
        self._add_to_node(event, measured, Segment(start, at, spent, power, speed), state, phase)

    def _add_to_node(self, event: Event, measured: Measurement, spent: Segment, state: str, phase: str) -> None:
        """Add what is counted for each node: power, emissions, work; and the time of the first node."""
        totals, node = self.totals, self.totals.by_node[event.node_rank]
        seconds = max(0.0, spent.end - spent.start)
        node.joules += spent.joules
        if state == "held":
            node.held_seconds += seconds
            node.held_joules += spent.joules
        elif phase == "training":
            node.training_seconds += seconds
            node.training_full_joules += spent.joules / spent.power
        facility = spent.joules * measured.pue
        if event.node_rank == 0:
            totals.seconds_by_state[state] += seconds
            known = measured.intensity
            value, kind = (None, "") if known is None else (known.value, known.kind)
            totals.add_emissions(facility, value, kind)
            self._timeline.add(IntensityInterval(spent.start, spent.end, value, kind))
            self._settle_until(self._timeline.end)
        elif facility > 0.0:
            self._unsettled.append((spent.start, spent.end, facility))
            self._settle_until(self._timeline.end)
        if phase in _WORK_PHASES and state in ("running", "throttled") and (spent.joules > 0.0 or seconds > 0.0):
            totals.segments.append(spent._replace(joules=facility, attempt=event.attempt, node=event.node_rank))
            if len(totals.segments) > max(_MAX_SEGMENTS, self._join_from):
                totals.segments[:] = join_neighbors(totals.segments)
                self._join_from = 2 * len(totals.segments)  # those of different levels are not joined

    def _settle_until(self, limit: float) -> None:
        if limit == float("-inf"):  # on a node that does not read the grid
            return
        due = [one for one in self._unsettled if one[1] <= limit]
        if due:
            self._unsettled = [one for one in self._unsettled if one[1] > limit]
        for start, end, facility in due:
            for share, value, kind in self._timeline.shares(start, end):
                self.totals.add_emissions(facility * share, value, kind)


FitAccounts = dict[int | None, Account]
"""The account of each fit by its number; under None, the energy between fits."""


def account_by_fit(events: Iterable[Event], accounts: FitAccounts | None = None) -> FitAccounts:
    """Return the account of each fit of a run.

    Args:
        events: Events of the run's ledger, in order.
        accounts: Accounts of earlier events, which are continued.

    """
    found: FitAccounts = {} if accounts is None else accounts
    for event in events:
        add_to_account(found, event)
    return found


def add_to_account(accounts: FitAccounts, event: Event) -> None:
    """Add the next event of a run to the account of its fit."""
    number = event.accounted_fit
    if number not in accounts:
        accounts[number] = Account()
    accounts[number].add(event)


def total(events: Iterable[Event]) -> Totals:
    """Return the totals of a ledger's events: the sums over the fits of the run.

    Examples:
        ```python
        totals = total(read_ledger(Path("lightning_green/train-1a2b3c4d")))
        print(totals.kwh, totals.grams())
        ```

    """
    accounts = account_by_fit(events)
    for account in accounts.values():
        account.settle()
    return sum_totals({number: account.totals for number, account in accounts.items()})
