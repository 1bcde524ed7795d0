"""Statements about a run in the form that others ask for: a model card, a SCI score."""

from __future__ import annotations

import json

from lightning_green.report.run_report import RunReport
from lightning_green.utilities.quantities import format_grams


def model_card(report: RunReport) -> str:
    """Return the ``co2_eq_emissions`` block of a model card on the Hugging Face Hub, in YAML.

    The fields are those of the Hub's documentation, "Displaying carbon emissions for your model".
    """
    main = report.emissions
    if main is None:
        return "# The emissions are unknown: no carbon intensity or no energy was recorded."
    quality = "measured" if report.is_measured else "partly or wholly modeled"
    intensity = ", ".join(one.source for one in main.sources)
    source = f"Lightning Green: energy {quality}; carbon intensity {intensity} ({main.kind})"
    lines = [
        "co2_eq_emissions:",
        f"  emissions: {main.gco2e:.6g}  # in grams of CO2eq",
        f"  source: {json.dumps(source)}",
        '  training_type: "pre-training"  # or "fine-tuning"',
    ]
    if report.zone:
        lines.append(f"  geographical_location: {json.dumps(report.zone)}")
    lines.append(
        f"  hardware_used: {json.dumps((report.meter or 'unknown').replace('modelled', 'modeled'))}  # as metered"
    )
    return "\n".join(lines)


def sci_statement(report: RunReport, embodied_grams: float | None = None) -> str:
    """Return the Software Carbon Intensity of a run, with one training run as the functional unit.

    SCI = (E x I + M) / R (Green Software Foundation, SCI specification 1.1; ISO/IEC 21031:2024).

    Args:
        report: The run.
        embodied_grams: Share M of the hardware's embodied emissions in gCO2e, or None if it is not stated.

    """
    main = report.emissions
    if main is None or report.status.energy_kwh is None:
        return "The SCI is unknown: no carbon intensity or no energy was recorded."
    operational, kwh = main.gco2e, report.status.energy_kwh
    total = operational + (embodied_grams or 0.0)
    embodied = (
        "M (embodied) is not stated, so this is the operational part only"
        if embodied_grams is None
        else f"M (embodied) = {format_grams(embodied_grams)}"
    )
    return (
        f"SCI = {format_grams(total)} per training run. R = 1 run; E x I (operational, PUE {report.pue:g}) = "
        f"{format_grams(operational)}, the sum over time of {kwh:.4g} kWh with the {main.kind} intensity of "
        f"that time and place; {embodied}."
    )
