"""Sources of carbon intensity, each asked once with a time limit for all."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone

from lightning_green.doctor.finding import Finding
from lightning_green.grid.auto import ZONE_VARIABLE
from lightning_green.grid.chain import ChainSignal
from lightning_green.grid.doctor import candidates, check
from lightning_green.grid.live import PolledSignal
from lightning_green.grid.signal import GridSignal

SECTION = "Grid"
LIMIT_SECONDS = 5.0
_OFFLINE = (
    'without internet access, use --grid typical:ZONE or a file that "lightning-green grid record" has written '
    "elsewhere (file:PATH)"
)


def examine_grid(
    grid: GridSignal | None, environ: Mapping[str, str] | None = None, limit: float = LIMIT_SECONDS
) -> Iterator[Finding]:
    """Yield whether sources of carbon intensity answer.

    Args:
        grid: The only source to examine; None for all services of the zone in ``LIGHTNING_GREEN_ZONE``.
        environ: Environment; None for the process's own.
        limit: Seconds to wait for all answers.

    """
    environ = os.environ if environ is None else environ
    zone = environ.get(ZONE_VARIABLE, "").strip() or None
    signals: dict[str, GridSignal] = {}
    findings: list[Finding] = []
    try:
        for name, found in [*candidates(zone, environ)] if grid is None else [(grid.source, grid)]:
            if isinstance(found, str):
                findings.append(_not_asked(name, found))
            else:
                signals[name] = found
    except ValueError as error:
        correction = f"correct {ZONE_VARIABLE}, for example: export {ZONE_VARIABLE}=DE"
        yield Finding(SECTION, "zone", "no", str(error), correction, is_required=True)
        return
    answers = _ask(signals, limit)
    yield _summary(signals, answers, zone, named=grid is not None)
    for name, signal in signals.items():
        good, line = answers.get(name, (False, f"no answer within {limit:g} s"))
        if good and "long-run mean" in line:
            yield Finding(SECTION, name, "limited", line, "use a source with current values, such as --grid auto:ZONE")
        elif good:
            yield Finding(SECTION, name, "ok", line)
        else:
            is_remote = isinstance(signal, (PolledSignal, ChainSignal))
            yield Finding(SECTION, name, "no", line, _OFFLINE if is_remote else "correct the source")
    yield from findings


def _summary(
    signals: Mapping[str, GridSignal], answers: Mapping[str, tuple[bool, str]], zone: str | None, named: bool
) -> Finding:
    """Return whether carbon intensity is available at all."""
    working = [name for name in signals if answers.get(name, (False, ""))[0]]
    if working:
        return Finding(SECTION, "intensity", "ok", f"available from {', '.join(working)}", is_required=True)
    if signals:
        text = "no source answers; the network may be unreachable"
        return Finding(SECTION, "intensity", "no", text, _OFFLINE, is_required=True)
    if zone is None and not named:
        text = f"no zone is given, so no source is asked; set {ZONE_VARIABLE}"
        remedy = f"export {ZONE_VARIABLE}=DE, or pass --grid auto:DE"
        return Finding(SECTION, "intensity", "no", text, remedy, is_required=True)
    text = f"no service that is configured covers {zone}"
    return Finding(SECTION, "intensity", "no", text, f"pass --grid typical:{zone}", is_required=True)


def _not_asked(name: str, reason: str) -> Finding:
    """Return the finding about a service without credentials or for other zones."""
    kind, _, text = reason.partition(": ")
    if kind == "not configured":
        variables = text.removesuffix(" not set").split(" and ")
        return Finding(SECTION, name, "no", reason, "; ".join(f"export {variable}=..." for variable in variables))
    return Finding(SECTION, name, "limited", reason)


def _ask(signals: Mapping[str, GridSignal], limit: float) -> dict[str, tuple[bool, str]]:
    """Return the answer of each source that answers in time. All are asked at once."""
    answers: dict[str, tuple[bool, str]] = {}

    def ask(name: str, signal: GridSignal) -> None:
        try:
            answers[name] = check(signal, datetime.now(timezone.utc))
        except Exception as error:  # noqa: BLE001 - a source of another package; its failure is the finding
            answers[name] = (False, f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=ask, args=one, daemon=True) for one in signals.items()]
    for thread in threads:
        thread.start()
    until = time.monotonic() + limit
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return dict(answers)
