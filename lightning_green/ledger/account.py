"""Adds the events of a ledger up to totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress

from lightning_green.ledger.events import (
    AllocationKept,
    BetweenFits,
    DevicesIdle,
    Event,
    Finished,
    Paused,
    Started,
    StateEvent,
)
from lightning_green.ledger.intensity_series import read_series
from lightning_green.ledger.intensity_timeline import IntensityInterval, IntensityTimeline, Origin
from lightning_green.ledger.measurement import Intensity, Measurement
from lightning_green.ledger.recorded_intensity import Place
from lightning_green.ledger.segments import Segment, join_neighbors
from lightning_green.ledger.totals import UNMETERED, Totals, bounded, sum_totals

SHORTEST_SLEEP = 5.0
"""Seconds by which the wall clock has to be ahead of the monotonic clock; less is a correction of the clock."""
_MAX_SEGMENTS = 50_000
"""Number of segments that are kept one by one: nine days, one every 15 s. Then neighbors are joined."""


class Account:
    """Adds the events of one fit to its totals.

    Events of different nodes may come in any order within one start.

    Attributes:
        totals: The totals so far.
        measured_until: Time of the last event of a training process in seconds since the epoch, or None.

    """

    def __init__(self) -> None:
        self.totals = Totals()
        self._last: dict[int, Event] = {}
        self._exited = False
        self.measured_until: float | None = None
        self._first_attempt: int | None = None
        self._timeline, self._timeline_attempt = IntensityTimeline(), 0
        self._unsettled: list[tuple[float, float, float]] = []
        self._join_from = 0
        self._signal = ""
        self._origin: Origin | None = None
        self._last_exit: tuple[float, float] | None = None
        self._exited_attempts: set[int] = set()
        self._delays: dict[int, float] = defaultdict(float)
        self._saves: dict[int, list[tuple[Segment, float]]] = defaultdict(list)

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
        if event.measured is not None:
            if event.attempt != self._timeline_attempt:
                self.settle()  # with the intensities of the previous start
                self._timeline, self._timeline_attempt = IntensityTimeline(), event.attempt
            self._interval(event, event.measured, at, self._last.get(event.node_rank))
            self._last[event.node_rank] = event
        if isinstance(event, Paused) and not event.node_rank:
            self._exit(event, at)
        if isinstance(event, AllocationKept):
            self._keep(event)
        if isinstance(event, DevicesIdle) and event.measured is not None:
            self._add_idle(event, event.pue)
        restored = isinstance(event, Finished) and event.again  # the fit ended when it finished
        if event.node_rank == 0 and not restored:
            totals.last_time = at if totals.last_time is None else max(totals.last_time, at)
            # the supervisor's decisions are made while nothing runs
            if event.measured is not None or isinstance(event, StateEvent):
                self.measured_until = totals.last_time

    def settle(self) -> None:
        """Account the energy of other nodes since the last event of rank 0 at the last known intensity."""
        self._settle_until(float("inf"))

    def _start(self, event: Started, at: float) -> None:
        totals, began = self.totals, at - event.startup_s
        if totals.first_start is None:
            totals.first_start, self._first_attempt = began, event.attempt
        elif self.measured_until is not None and event.attempt > totals.attempts:
            totals.seconds_by_state["out" if self._exited else "stopped"] += max(0.0, began - self.measured_until)
        self._exited = False
        totals.out_since, totals.idle_watts, totals.allocation = None, 0.0, None
        totals.kept_seconds, totals.kept_until = 0.0, None
        self._signal = event.signal or ""
        self._add_intensities_while_away(event, began)
        totals.attempts = max(totals.attempts, event.attempt)
        totals.nodes = event.nodes or 1

    def _add_intensities_while_away(self, event: Started, began: float) -> None:
        """Keep the intensities between the last event and a start, for the run-now baseline."""
        known = None if event.measured is None else event.measured.intensity
        series = read_series(event.away) if known is not None else []
        if known is None or not series:
            return
        recorded = self.totals.intensities[Place(known.kind, known.zone, known.source, self._signal)]
        ends = [start for start, _ in series[1:]] + [began]
        for (start, value), end in zip(series, ends, strict=True):
            if value is not None:
                recorded.add(start, end, value)

    def _exit(self, event: Paused, at: float) -> None:
        self.totals.exits += 1
        self.totals.out_since, self._exited = at, True
        self.totals.idle_watts, self.totals.allocation = event.idle_watts or 0.0, event.allocation
        self.totals.kept_seconds, self.totals.kept_until = 0.0, None
        self._exited_attempts.add(event.attempt)
        for node in list(self._saves):
            for save, joules in self._saves.pop(node):
                self._add_exit(save, joules)
        self._last_exit = at, self._delays[0]

    def _keep(self, event: AllocationKept) -> None:
        totals = self.totals
        if totals.out_since is None or event.since is None or event.until is None:
            return
        since = max(event.since.timestamp(), totals.out_since, totals.kept_until or 0.0)
        if (until := event.until.timestamp()) > since:
            totals.kept_seconds, totals.kept_until = totals.kept_seconds + until - since, until
        totals.allocation = event.allocation

    def _add_idle(self, event: DevicesIdle, pue: float) -> None:
        """Add the energy of idle devices between an exit and a start: a run without waiting does not have it."""
        totals, joules = self.totals, max(0.0, event.idle_joules)
        totals.joules[UNMETERED] += joules
        totals.note_quality(UNMETERED, "modelled")
        totals.joules_by_state["out"] += joules
        totals.joules_by_phase["held"] += joules
        known = None
        with suppress(KeyError, ValueError):
            known = Intensity.from_json(event.idle_intensity or {})
        if known is None:
            totals.add_emissions(joules * pue, None, None)
        else:
            place = Place(known.kind, known.zone, known.source, self._signal)
            totals.add_emissions(joules * pue, known.value, Origin(place, known.quality or ""))

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
        awake = _awake(previous if before is not None else None, event, at - start)
        waited = max(0.0, measured.data_wait_s - waited_before)
        share = min(1.0, waited / awake) if phase == "training" and awake > 0.0 else 0.0
        totals.joules_by_phase[phase] += spent * (1.0 - share)
        if share:
            totals.joules_by_phase["data_wait"] += spent * share
        came_back = before is None and self._come_back(event.node_rank, previous, start)
        if state not in ("running", "throttled"):
            use = "wait"
        elif came_back or (phase == "restart" and event.attempt in self._exited_attempts):
            use = "exit"
        elif phase == "restart" and before is not None:
            use = "save"
        else:
            use = "work"
        self._add_to_node(event, measured, Segment(start, at, spent, power, speed), awake, use, state, phase)

    def _come_back(self, node: int, previous: Event | None, start: float) -> bool:
        """Note the time since the last process of a node, and return whether that has exited as planned."""
        if previous is None:  # a new node starts with the others
            self._delays[node] = self._last_exit[1] + start - self._last_exit[0] if self._last_exit is not None else 0.0
            return self._last_exit is not None
        if exited := previous.attempt in self._exited_attempts:
            self._delays[node] += max(0.0, start - previous.timestamp)
        for save, _ in self._saves.pop(node, []):  # for a signal: a run without waiting gets it as well
            self._add_work(save)
        return exited

    def _add_exit(self, spent: Segment, joules: float) -> None:
        """Add an interval of saving a state for a planned exit, or of the restart after it; ``joules`` before PUE."""
        self.totals.exit_joules += joules
        self._delays[spent.node] += max(0.0, spent.end - spent.start)

    def _add_work(self, spent: Segment) -> None:
        """Add an interval that a run without waiting has as well."""
        segments, delay = self.totals.segments, self._delays[spent.node]
        segments.append(spent if spent.delay == delay else spent._replace(delay=delay))
        self._delays[spent.node] += (spent.end - spent.start) * (1.0 - spent.speed)
        if len(segments) > max(_MAX_SEGMENTS, self._join_from):
            segments[:] = join_neighbors(segments)
            self._join_from = 2 * len(segments)  # those of different levels are not joined

    def _add_to_node(
        self,
        event: Event,
        measured: Measurement,
        spent: Segment,
        awake: float,
        use: str,
        state: str,
        phase: str,
    ) -> None:
        """Add what is counted for each node: power, emissions, work; and the time of the first node."""
        totals, node = self.totals, self.totals.by_node[event.node_rank]
        node.joules += spent.joules
        if state == "held":
            node.held_seconds += awake
            node.held_joules += spent.joules
        elif phase == "training":
            node.training_seconds += awake
            node.training_full_joules += spent.joules / spent.power
        facility = spent.joules * measured.pue
        if event.node_rank == 0:
            totals.seconds_by_state[state] += awake
            if spent.end - spent.start > awake:
                totals.seconds_by_state["asleep"] += spent.end - spent.start - awake
            self._price(spent, awake, measured.intensity, facility)
        elif facility > 0.0:
            self._unsettled.append((spent.start, spent.end, facility))
        self._settle_until(self._timeline.end)
        if spent.joules <= 0.0 and awake <= 0.0:
            return
        end = spent.start + awake if awake < spent.end - spent.start else spent.end
        node_rank, origin = event.node_rank, self._origin
        place = None if origin is None or node_rank else origin.place
        delay = self._delays[node_rank]
        work = Segment(spent.start, end, facility, spent.power, spent.speed, event.attempt, node_rank, place, delay)
        if use == "wait":
            self._delays[node_rank] += spent.end - spent.start
        elif use == "exit":
            self._add_exit(work, spent.joules)
        elif use == "save":
            self._saves[node_rank].append((work, spent.joules))
        else:
            self._add_work(work)

    def _price(self, spent: Segment, awake: float, known: Intensity | None, facility: float) -> None:
        """Add the emissions of an interval of the first node, and keep its intensity for the others."""
        if known is None:
            value, self._origin = None, None
        else:
            value, place = known.value, Place(known.kind, known.zone, known.source, self._signal)
            self._origin = Origin(place, known.quality or "")
            recorded = self.totals.intensities[place]
            if awake < spent.end - spent.start:  # the value is that of the time before and after the machine slept
                recorded.add(spent.start, spent.start + awake / 2, known.value)
                recorded.add(spent.end - awake / 2, spent.end, known.value)
            else:
                recorded.add(spent.start, spent.end, known.value)
        self.totals.add_emissions(facility, value, self._origin)
        self._timeline.add(IntensityInterval(spent.start, spent.end, value, self._origin))

    def _settle_until(self, limit: float) -> None:
        if limit == float("-inf"):  # on a node that does not read the grid
            return
        due = [one for one in self._unsettled if one[1] <= limit]
        if due:
            self._unsettled = [one for one in self._unsettled if one[1] > limit]
        for start, end, facility in due:
            for share, value, origin in self._timeline.shares(start, end):
                self.totals.add_emissions(facility * share, value, origin)


def _awake(previous: Event | None, event: Event, seconds: float) -> float:
    """Return the part of an interval in which the machine did not sleep: its monotonic clock stands still in sleep."""
    seconds = max(0.0, seconds)
    if previous is None or previous.pid != event.pid or previous.mono_s <= 0.0 or event.mono_s < previous.mono_s:
        return seconds
    awake = event.mono_s - previous.mono_s
    return awake if seconds - awake > SHORTEST_SLEEP else seconds


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
