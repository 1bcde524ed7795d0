"""A meter whose failures and delays do not reach the training."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args

from typing_extensions import override

from lightning_green.energy.constant import ConstantPowerMeter
from lightning_green.energy.meter import COMPONENTS, Component, Energy, Meter, Quality
from lightning_green.energy.none import NoMeter

log = logging.getLogger(__name__)

START_SECONDS = 1.0
"""How long a training waits for its meter to start; the meter continues to start in its thread."""
SAMPLE_SECONDS = 0.05
"""How long a change of state waits for a sample, so that energy is assigned to the correct state."""
LAST_SAMPLE_SECONDS = 2.0
"""How long the end of a fit waits for the last sample, without which the energy since the previous one is missing."""
_READ_SECONDS = 1.0  # time between two readings of the meter
_HANG_SECONDS = 10.0  # a call that takes longer makes the energy unavailable until it returns
_START_HANG_SECONDS = 60.0  # the detection of the hardware takes several seconds on some machines
_ROUNDING = 1e-6  # relative decrease of a cumulative energy that is a rounding error

_UNKNOWN: dict[Component, Energy] = {"other": Energy(0.0, "unavailable")}


def guard(meter: Meter) -> Meter:
    """Return a meter that never raises, never waits and returns finite numbers only.

    A constant power and no meter are returned themselves. They neither wait nor fail, because they only multiply and
    add, and a reading is current at any time on a simulated clock too. A subclass may do anything, so it is guarded.
    """
    return meter if type(meter) in (ConstantPowerMeter, NoMeter) else GuardedMeter(meter)


class _Call(NamedTuple):
    name: str
    function: Callable[[], object]
    done: threading.Event


class GuardedMeter(Meter):
    """Call another meter in a thread of its own; the training reads the last values.

    A meter may raise, hang, or return NaN, negative, falling or NumPy numbers. The component is then ``"unavailable"``
    with its last good value for as long as that lasts, and ``problem`` contains one line per kind of failure.

    Args:
        meter: Meter of any kind.

    Examples:
        ```python
        meter = GuardedMeter(RackMeter())
        meter.start()  # at most a second
        meter.sample()  # at most 50 ms
        meter.read()  # at once
        ```

    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self.name = str(getattr(meter, "name", type(meter).__name__))
        self._wakeup = threading.Condition()
        self._calls: deque[_Call] = deque()
        self._thread: threading.Thread | None = None
        self._polls = False  # whether the thread reads the meter periodically
        self._busy_since: float | None = None
        self._slow = False  # whether the last sample took too long to wait for the next one
        self._overdue = False  # whether the last sample of a fit has not come in time
        self._started = self._closed = False
        self._values: dict[Component, Energy] = {}
        self._description = f"{self.name} (starting)"
        self._problems: dict[str, str] = {}
        self._inner_problem: str | None = None

    # -- in the thread of the training --------------------------------------------------------------------------------

    @property
    def problem(self) -> str | None:  # type: ignore[override]
        """Descriptions of the failures so far, one per line, or None."""
        lines = [*self._problems.values(), *((self._inner_problem or "").splitlines())]
        return "\n".join(lines) or None

    @override
    def import_libraries(self) -> None:
        self._protect("import", self._meter.import_libraries)

    @override
    def start(self) -> None:
        if self._started or self._closed:
            return
        # Not in the other thread: a data loader's worker that is forked during an import could wait for it forever.
        self.import_libraries()
        if not self._submit("start", self._start).wait(START_SECONDS):
            log.info("The meter %r is still starting. Energy is counted once it has started.", self.name)

    @override
    def read(self) -> dict[Component, Energy]:
        busy, limit = self._busy_since, _HANG_SECONDS if self._started else _START_HANG_SECONDS
        if busy is not None and (self._overdue or time.monotonic() - busy > limit):
            self._note("hang", "does not respond. Its energy is unknown until it responds")
            return _without_quality(self._values)
        return dict(self._values)

    @override
    def sample(self, wait: float = SAMPLE_SECONDS) -> None:
        """Request a sample and wait for it.

        Args:
            wait: Longest wait in s. A meter whose last sample took longer than ``SAMPLE_SECONDS`` is not waited for,
                unless ``wait`` is longer than that.

        """
        if self._closed:
            return
        done = self._submit("sample", self._meter.sample)
        if not self._overdue and (wait > SAMPLE_SECONDS or not self._slow):
            done.wait(wait)
            self._slow = self._slow or not done.is_set()
            self._overdue = wait > SAMPLE_SECONDS and not done.is_set()

    @override
    def rest(self) -> None:
        self._submit("rest", self._rest).wait(SAMPLE_SECONDS if self._slow else LAST_SAMPLE_SECONDS)

    @override
    def wake(self) -> None:
        # A meter that could not start tries again with the next fit.
        self._submit("wake", self._wake if self._started else self._start).wait(START_SECONDS)

    @override
    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._submit("close", self._close).wait(SAMPLE_SECONDS if self._slow else LAST_SAMPLE_SECONDS)

    @override
    def bind_clock(self, time_source: Callable[[], float]) -> None:
        self._submit("bind_clock", lambda: self._meter.bind_clock(time_source))

    @override
    def bind_gpus(self, gpus: Sequence[str]) -> None:
        self._submit("bind_gpus", lambda: self._meter.bind_gpus(gpus))

    @override
    def set_load(self, fraction: float) -> None:
        self._submit("set_load", lambda: self._meter.set_load(fraction))

    @override
    def describe(self) -> str:
        return self._description

    def _submit(self, name: str, function: Callable[[], object]) -> threading.Event:
        """Let the other thread call a function after all earlier calls; return what is set when it has returned."""
        with self._wakeup:
            if self._calls and self._calls[-1].name == name == "sample":
                return self._calls[-1].done
            call = _Call(name, function, threading.Event())
            self._calls.append(call)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lightning-green meter", daemon=True)
                self._thread.start()
            self._wakeup.notify()
        return call.done

    # -- in the other thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._wakeup:
                if not self._calls and self._polls:
                    self._wakeup.wait(_READ_SECONDS)
                call = self._calls.popleft() if self._calls else None
                if call is None and not self._polls:
                    self._thread = None
                    return
                begin = self._busy_since = time.monotonic()
            if call is not None:
                self._protect(call.name, call.function)
            if self._started and (self._polls or (call is not None and call.name == "sample")):
                self._refresh()
            self._busy_since = None
            if call is not None:
                if call.name == "sample":
                    self._slow, self._overdue = time.monotonic() - begin > SAMPLE_SECONDS, False
                call.done.set()

    def _protect(self, name: str, function: Callable[[], object]) -> bool:
        """Call a function; return whether it succeeded."""
        try:
            function()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of any meter
            self._note(f"{name} {type(error).__name__}", f"raised {_text(error)} in `{name}`. Its energy is unknown")
            return False
        return True

    def _start(self) -> None:
        begin = time.monotonic()
        try:
            self._meter.start()
        except (Exception, SystemExit) as error:
            self._values, self._description = dict(_UNKNOWN), f"{self.name} unavailable ({_text(error)})"
            raise
        self._started = self._polls = True
        self._values = {}
        self._protect("describe", self._describe)
        if time.monotonic() - begin > START_SECONDS:
            log.info("The meter has started after %.0f s: %s", time.monotonic() - begin, self._description)

    def _describe(self) -> None:
        self._description = str(self._meter.describe())

    def _rest(self) -> None:
        self._polls = False
        if self._started:
            self._meter.rest()
            self._refresh()

    def _wake(self) -> None:
        self._polls = True
        self._meter.wake()

    def _close(self) -> None:
        self._polls = False
        if self._started:
            self._refresh()
            self._meter.close()
            try:  # the last sample of a meter that takes one in `close`
                values = self._checked(self._meter.read(), report=False)
            except (Exception, SystemExit):  # noqa: BLE001 - of any meter, many of which cannot be read after `close`
                return
            if all(energy.quality != "unavailable" for energy in values.values()):
                self._values = values

    def _refresh(self) -> None:
        """Read the meter; keep the last values if that fails."""
        try:
            self._values = self._checked(self._meter.read())
            self._inner_problem = self._meter.problem
        except (Exception, SystemExit) as error:  # noqa: BLE001 - of any meter
            self._note(f"read {type(error).__name__}", f"raised {_text(error)}. Its energy keeps the last value")
            self._values = _without_quality(self._values)

    def _checked(self, readings: Mapping[Component, Any], report: bool = True) -> dict[Component, Energy]:
        """Return the readings as finite floats that do not fall, with the quality ``"unavailable"`` otherwise."""
        values = _without_quality(self._values) if self._values and self._values != _UNKNOWN else {}
        for name, reading in dict(readings).items():
            before = values[name].joules if name in values else 0.0
            try:
                joules, quality = _read_pair(name, reading)
                if joules < before - _ROUNDING * before:
                    raise ValueError(f"a falling energy: {joules:g} J after {before:g} J")
            except (TypeError, ValueError) as error:
                if report:
                    kind = str(error).partition(":")[0]
                    self._note(f"{name} {kind}", f"returned {error} ({name}). The energy is unknown for that time")
                if name in COMPONENTS:
                    values[name] = Energy(before, "unavailable")
                continue
            values[name] = Energy(max(before, joules), quality)
        return values

    def _note(self, kind: str, text: str) -> None:
        """Keep the first description of each kind of failure."""
        if kind not in self._problems:
            self._problems = {**self._problems, kind: f"The meter {self.name!r} {text}. The training continues."}


def _read_pair(name: object, reading: Any) -> tuple[float, Quality]:
    if name not in COMPONENTS:
        raise ValueError(f"an unknown component: {name!r:.40}, which should be one of {', '.join(COMPONENTS)}")
    try:
        joules, quality = reading
        joules = float(joules)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(f"no energy: {reading!r:.60}") from error
    if not math.isfinite(joules):
        raise ValueError(f"an energy that is not finite: {joules}")
    if joules < 0.0:
        raise ValueError(f"a negative energy: {joules:g} J")
    if quality not in get_args(Quality):
        raise ValueError(
            f'an unknown quality: {quality!r:.40}, which should be "measured", "modelled" or "unavailable"'
        )
    return joules, quality


def _without_quality(values: Mapping[Component, Energy]) -> dict[Component, Energy]:
    return {name: Energy(energy.joules, "unavailable") for name, energy in values.items()} or dict(_UNKNOWN)


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": .")[:300]
