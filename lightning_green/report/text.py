"""Sentences and tables of a report, shared by its formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lightning_green
from lightning_green.report.run_report import Emissions, RunReport
from lightning_green.utilities.durations import format_duration
from lightning_green.utilities.quantities import format_energy, format_grams, format_percent, quality_text

KIND_LABELS = {
    "average/lifecycle": "average, life cycle",
    "average/direct": "average, direct",
    "marginal/lifecycle": "marginal, life cycle",
    "marginal/direct": "marginal, direct",
}


def saving_text(emissions: Emissions | None) -> str:
    """Return a saving with its standard deviation, such as ``"12.3 % ± 0.8 %"``."""
    if emissions is None or emissions.saving_pct is None:
        return "unknown"
    std = emissions.saving_std_pct
    within = f" ± {format_percent(std)}" if std is not None and std >= 0.05 else ""
    return format_percent(emissions.saving_pct) + within


def saving_note(emissions: Emissions | None) -> str:
    """Return a sentence about what a saving compares."""
    if emissions is None:
        return "No carbon intensity was known, so there are no emissions to compare."
    if emissions.run_now is None or emissions.saving_pct is None:
        return "The emissions without waiting are unknown: no intensity is known for that time."
    without = format_grams(emissions.run_now)
    share = emissions.known_share
    if share is not None and share < 0.9995:
        actual = format_grams(emissions.actual_of_known)
        return (
            f"Compared with {without} for the same work without waiting; the {format_percent(100 * share)} of the work "
            f"whose intensity is known emitted {actual}."
        )
    more = " Waiting cost more than it saved." if emissions.saving_pct < 0.0 else ""
    return f"Compared with {without} for the same work without waiting.{more}"


def quality_sentence(report: RunReport) -> str:
    """Return which energy was measured and which was modeled."""
    by_quality: dict[str, list[str]] = {}
    for one in report.components:
        label = quality_text(one.quality, one.kwh).replace("modelled", "modeled")
        by_quality.setdefault(label, []).append(one.name)
    if not by_quality:
        return "No energy was measured."
    return "; ".join(f"{', '.join(names)}: {quality}" for quality, names in by_quality.items()) + "."


def figures(report: RunReport) -> list[tuple[str, str]]:
    """Return the figures of a run as (name, text)."""
    main = report.main_emissions
    rows = [
        ("State", f"{report.ended_by}, {report.steps:,} steps"),
        ("Energy", format_energy(report.kwh)),
        *(
            (f"Energy, {one.name}", f"{format_energy(one.kwh)} ({_quality(one.quality, one.kwh)})")
            for one in report.components
        ),
        ("Emissions", format_grams(main.grams if main else None)),
        ("Without waiting", format_grams(main.run_now if main else None)),
        ("Saving", saving_text(main)),
        *(
            (f"Emissions, {KIND_LABELS.get(one.kind, one.kind)}", format_grams(one.grams))
            for one in report.emissions[1:]
        ),
        ("Intensity", _sources(report)),
        ("Zone", report.zone or "unknown"),
        ("Time", format_duration(report.elapsed_hours * 3600)),
        ("Waited", format_duration(report.hours_waited * 3600)),
        ("Planned exits", str(report.exits)),
        ("Starts", str(report.attempts)),
        ("PUE", f"{report.pue:g}"),
        ("Meter", (report.meter or "none").replace("modelled", "modeled")),
    ]
    if report.unpriced_kwh > 0.0:
        rows.append(("Energy without a known intensity", format_energy(report.unpriced_kwh)))
    if report.nodes > 1:
        rows.append(("Nodes", str(report.nodes)))
    return rows


def method_paragraph(report: RunReport) -> str:
    """Return a paragraph about the energy and the emissions of a run, for a paper."""
    main = report.main_emissions
    restarts = f"{report.attempts - 1} {'restart' if report.attempts == 2 else 'restarts'}"
    if report.kwh is None:
        sentences = ["The energy of the training was not measured."]
    else:
        quality = quality_sentence(report).rstrip(".")
        sentences = [
            f"Training used {format_energy(report.kwh)} of electricity ({quality}), including validation, checkpoints, "
            f"waiting and {restarts}."
        ]
    if main is not None:
        kind = KIND_LABELS.get(main.kind, main.kind)
        zone = f" of {report.zone}" if report.zone else ""
        sentences.append(
            f"With a PUE of {report.pue:g} and the {kind} carbon intensity{zone} at the time of use "
            f"({_sources(report)}), it emitted {format_grams(main.grams)} (location-based, without embodied emissions)."
        )
        if main.run_now is not None and main.saving_pct is not None:
            change = "less" if main.saving_pct >= 0.0 else "more"
            std = main.saving_std_pct
            within = f" (standard deviation {std:.1f} points)" if std is not None and std >= 0.05 else ""
            sentences.append(
                f"It waited {format_duration(report.hours_waited * 3600)} for cleaner electricity and emitted "
                f"{format_percent(abs(main.saving_pct))} {change} than the same work without waiting{within}."
            )
    sentences.append(
        f"Energy and emissions were recorded with Lightning Green {lightning_green.__version__}: the sum over "
        "intervals of energy x PUE x mean carbon intensity of the interval."
    )
    return " ".join(sentences)


def rows_of(reports: Sequence[RunReport]) -> Iterator[tuple[str, list[str]]]:
    """Yield the figures of several runs side by side, as (name, one text for each run)."""
    tables = [dict(figures(one)) for one in reports]
    for name in dict.fromkeys(name for table in tables for name in table):
        yield name, [table.get(name, "–") for table in tables]


def _sources(report: RunReport) -> str:
    return ", ".join(_source(name) for name in report.sources) or "unknown"


def _source(name: str) -> str:
    return name.replace("(static)", "(an estimate)")


def _quality(quality: str, kwh: float | None) -> str:
    return quality_text(quality, kwh).replace("modelled", "modeled")
