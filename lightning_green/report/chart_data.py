"""The data of the charts of a page, as JSON that its script draws."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_green.report.run_report import RunReport

MAX_FORECASTS = 24
"""Number of forecasts in a chart; of more, some that are evenly apart."""


def chart_data(report: RunReport) -> dict[str, Any]:
    """Return the curves of one run for its charts; times are in milliseconds since the epoch, as JavaScript counts."""
    deadline = report.status.deadline
    return {
        "name": report.name,
        "start": _ms(report.spans[0].start.timestamp()) if report.spans else None,
        "end": _ms(report.spans[-1].end.timestamp()) if report.spans else None,
        "deadline": _ms(deadline.timestamp()) if deadline else None,
        "spans": [[_ms(one.start.timestamp()), _ms(one.end.timestamp()), one.state] for one in report.spans],
        "intensity": list(_stairs(report)),
        "forecasts": [
            [[_ms(at), value] for at, value in one.values if value is not None] for one in _some(report.forecasts)
        ],
        "decisions": [
            [_ms(one.time.timestamp()), one.what, one.text, _intensity_at(report, one.time.timestamp())]
            for one in report.decisions
        ],
        "emitted": _points(report.emitted),
        "runNow": _points(report.emitted_run_now),
        "powerTimes": [_ms(at) for at in report.power_times],
        "power": {name: [_rounded(value) for value in values] for name, values in report.power.items()},
        "components": {one.component: _rounded(one.kwh) for one in report.status.components if one.kwh},
        "phases": {name: _rounded(kwh) for name, kwh in report.phase_kwh.items() if kwh > 0.0},
        "metrics": {
            name: [
                [_rounded(one.kwh), one.metrics[name], _ms(one.time.timestamp()), one.step]
                for one in report.validations
                if name in one.metrics
            ]
            for name in report.metric_names
        },
    }


def _stairs(report: RunReport) -> Iterable[list[float | None]]:
    """Yield the points of the intensity, two for each step, and a gap where it is unknown."""
    last: float | None = None
    for step in report.intensity:
        if last is not None and step.start - last > 1.0:
            yield [_ms(last), None]
        yield [_ms(step.start), _rounded(step.value)]
        yield [_ms(step.end), _rounded(step.value)]
        last = step.end


def _intensity_at(report: RunReport, at: float) -> float | None:
    found = next((one.value for one in report.intensity if one.start <= at <= one.end), None)
    return None if found is None else _rounded(found)


def _points(points: Iterable[tuple[float, float]]) -> list[list[float | None]]:
    return [[_ms(at), _rounded(value)] for at, value in points]


def _some(rows: tuple[Any, ...]) -> tuple[Any, ...]:
    step = max(1, -(-len(rows) // MAX_FORECASTS))
    return rows[::step]


def _ms(seconds: float) -> int:
    return round(seconds * 1000.0)


def _rounded(value: float | None) -> float | None:
    """Return a number with six significant digits: more only makes the page larger."""
    return None if value is None else float(f"{value:.6g}")
