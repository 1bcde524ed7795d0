"""Sentences and tables of a report, shared by its formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning_green.report.budget_text import budget_fields, describe_budget
from lightning_green.report.cost import KNOWN, RunCost
from lightning_green.report.run_report import RunReport
from lightning_green.report.run_status import ComponentEnergy, Emissions
from lightning_green.report.status import covers_enough, format_saving
from lightning_green.utilities.durations import format_duration
from lightning_green.utilities.quantities import format_energy, format_grams, format_money, format_percent, quality_text
from lightning_green.utilities.units import JOULES_PER_KWH
from lightning_green.utilities.version import package_version


def saving_is_known(emissions: Emissions | None) -> bool:
    """Return whether the saving is known for enough of the work to be shown."""
    if emissions is None or emissions.saving_pct is None or emissions.run_now_gco2e is None:
        return False
    return covers_enough(emissions.known_share)


def saving_text(emissions: Emissions | None) -> str:
    """Return a saving with its standard deviation, such as ``"12.3 % ± 0.8 %"``."""
    if emissions is None or emissions.saving_pct is None or not saving_is_known(emissions):
        return "unknown"
    return format_saving(emissions.saving_pct, emissions.saving_std_pct)


def saving_note(emissions: Emissions | None) -> str:
    """Return a sentence about what a saving compares."""
    if emissions is None:
        return "No carbon intensity was known, so there are no emissions to compare."
    if emissions.run_now_gco2e is None or emissions.saving_pct is None or not saving_is_known(emissions):
        return "The emissions without waiting are unknown: no intensity is known for most of that time."
    without = format_grams(emissions.run_now_gco2e)
    share = emissions.known_share
    if share is not None and share < 0.9995:
        actual = format_grams(emissions.gco2e_of_known)
        return (
            f"Compared with {without} for the same work without waiting; the {format_percent(100 * share)} of the work "
            f"whose intensity is known emitted {actual}."
        )
    more = " Waiting cost more than it saved." if emissions.saving_pct < 0.0 else ""
    return f"Compared with {without} for the same work without waiting.{more}"


def cost_saving_text(cost: RunCost) -> str:
    """Return the cost that waiting saved, such as ``"0.30 EUR (25.0 %)"``; negative if it cost more."""
    if cost.saving is None:
        return "unknown"
    percent = "" if cost.saving_pct is None else f" ({format_percent(cost.saving_pct)})"
    return format_money(cost.saving, cost.currency) + percent


def cost_note(cost: RunCost) -> str:
    """Return a sentence about what a cost compares, and about unknown prices."""
    if cost.unknown_kwh > KNOWN:
        return f"The price of {format_energy(cost.unknown_kwh)} is unknown; their cost is not included."
    if cost.run_now_unknown_kwh > KNOWN:
        missing = format_energy(cost.run_now_unknown_kwh)
        return f"The cost without waiting is unknown: the prices of that time are missing for {missing}."
    without = format_money(cost.run_now, cost.currency)
    saved = cost_saving_text(cost)
    return f"{without} for the same work without waiting; waiting saved {saved}."


def quality_sentence(report: RunReport) -> str:
    """Return which energy was measured and which was modeled."""
    by_quality: dict[str, list[str]] = {}
    for one in report.status.components:
        by_quality.setdefault(_quality(one), []).append(one.component)
    if not by_quality:
        return "No energy was measured."
    return "; ".join(f"{', '.join(names)}: {quality}" for quality, names in by_quality.items()) + "."


def figures(report: RunReport) -> list[tuple[str, str]]:
    """Return the figures of a run as (name, text)."""
    status, main = report.status, report.emissions
    rows = [("State", f"{status.state.name}, {status.steps:,} steps"), ("Energy", format_energy(status.energy_kwh))]
    rows += [(f"Energy, {one.component}", f"{format_energy(one.kwh)} ({_quality(one)})") for one in status.components]
    rows += [
        ("Emissions", format_grams(main.gco2e if main else None)),
        ("Without waiting", format_grams(main.run_now_gco2e if main else None)),
        ("Saving", saving_text(main)),
    ]
    rows += [(f"Emissions, {kind_label(one.kind)}", format_grams(one.gco2e)) for one in status.emissions[1:]]
    if report.market is not None:
        name = f"Emissions, market-based (stated factor of {report.market.factor:g} gCO2e/kWh)"
        rows.append((name, format_grams(report.market.gco2e)))
    if report.cost is not None:
        rows += _cost_figures(report.cost)
    rows += [
        ("Intensity", _sources(main)),
        ("Zone", report.zone or "unknown"),
        ("Time", format_duration(status.elapsed_hours * 3600)),
        ("Waited", format_duration(status.waited_hours * 3600)),
        ("Planned exits", str(status.exits)),
        ("Starts", str(status.starts)),
        ("PUE", f"{report.pue:g}"),
        ("Meter", (report.meter or "none").replace("modelled", "modeled")),
    ]
    if status.budget is not None and (used := describe_budget(**budget_fields(status.budget))):
        rows.append(("Budget", used))
    unpriced = status.history.totals.unpriced_joules / JOULES_PER_KWH
    if unpriced > 0.0:
        rows.append(("Energy without a known intensity", format_energy(unpriced)))
    if status.node_kwh:
        rows.append(("Nodes", str(len(status.node_kwh))))
    return rows


def _cost_figures(cost: RunCost) -> list[tuple[str, str]]:
    rows = [("Electricity cost", format_money(cost.amount, cost.currency))]
    if cost.run_now_unknown_kwh <= KNOWN:
        rows.append(("Cost without waiting", format_money(cost.run_now, cost.currency)))
    else:
        rows.append(("Cost without waiting", "unknown"))
    rows.append(("Cost saved", cost_saving_text(cost)))
    if cost.unknown_kwh > KNOWN:
        rows.append(("Energy without a known price", format_energy(cost.unknown_kwh)))
    return rows


def method_paragraph(report: RunReport) -> str:
    """Return a paragraph about the energy and the emissions of a run, for a paper."""
    status, main = report.status, report.emissions
    sentences = ["The energy of the training was not measured."]
    if status.energy_kwh is not None:
        quality = quality_sentence(report).rstrip(".")
        restarts = f"{status.starts - 1} {'restart' if status.starts == 2 else 'restarts'}"
        sentences = [
            f"Training used {format_energy(status.energy_kwh)} of electricity ({quality}), including validation, "
            f"checkpoints, waiting and {restarts}."
        ]
    if main is not None:
        zone = f" of {report.zone}" if report.zone else ""
        sentences.append(
            f"With a PUE of {report.pue:g} and the {kind_label(main.kind)} carbon intensity{zone} at the time of use "
            f"({_sources(main)}), it emitted {format_grams(main.gco2e)} (location-based, without embodied emissions)."
        )
        if saving_is_known(main) and main.saving_pct is not None:
            change = "less" if main.saving_pct >= 0.0 else "more"
            std = main.saving_std_pct
            within = f" (standard deviation {std:.1f} points)" if std is not None and std >= 0.05 else ""
            sentences.append(
                f"It waited {format_duration(status.waited_hours * 3600)} for cleaner electricity and emitted "
                f"{format_percent(abs(main.saving_pct))} {change} than the same work without waiting{within}."
            )
    sentences.append(
        f"Energy and emissions were recorded with Lightning Green {package_version()}: the sum over "
        "intervals of energy x PUE x mean carbon intensity of the interval."
    )
    return " ".join(sentences)


def kind_label(kind: str) -> str:
    """Return a kind of signal in words."""
    return kind.replace("/", ", ").replace("lifecycle", "life cycle")


def rows_of(reports: Sequence[RunReport]) -> Iterator[tuple[str, list[str]]]:
    """Yield the figures of several runs side by side, as (name, one text for each run)."""
    tables = [dict(figures(one)) for one in reports]
    for name in dict.fromkeys(name for table in tables for name in table):
        yield name, [table.get(name, "–") for table in tables]


def _sources(emissions: Emissions | None) -> str:
    found = [_source(one.source, one.quality) for one in (emissions.sources if emissions else ())]
    return ", ".join(found) or "unknown"


def _source(source: str, quality: str) -> str:
    """Return a source and its quality; a static one is a mean of other times, so an estimate."""
    quality = "an estimate" if quality == "static" else quality
    return f"{source}, {quality}" if quality else source


def _quality(one: ComponentEnergy) -> str:
    return quality_text(one.quality, one.kwh).replace("modelled", "modeled")
