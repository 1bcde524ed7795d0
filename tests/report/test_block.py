"""The totals that are printed at the end of a run."""

import subprocess
from pathlib import Path

import pytest

from lightning_green.report.block import totals_block, wandb_sync_line

SUMMARY = {
    "energy/kwh": 1.5,
    "energy/cpu_kwh": 0.25,
    "energy/gpu_kwh": 1.2,
    "energy/ram_kwh": 0.05,
    "energy/quality": {"cpu": "modelled", "gpu": "measured", "ram": "modelled"},
    "carbon/gco2e": 300.0,
    "carbon/counterfactual_gco2e": 400.0,
    "carbon/saving_pct": 25.0,
    "carbon/unpriced_kwh": 0.0,
    "carbon/exits": 2,
    "carbon/hours_waited": 10.5,
    "carbon/elapsed_hours": 30.0,
}


def block(record=None, folder=Path("/runs/train-1a2b"), **changed):
    names = {name.replace("__", "/"): value for name, value in changed.items()}
    return totals_block({**SUMMARY, **names}, folder, record or {}).splitlines()


def test_block_contains_energy_emissions_time_and_directory():
    assert block() == [
        "Lightning Green",
        "  Energy     1.500 kWh: cpu 0.2500 kWh (modelled), gpu 1.200 kWh (measured), ram 50.00 Wh (modelled)",
        "  Emissions  300.0 gCO2e",
        "  Run now    400.0 gCO2e: a saving of 25.0 %",
        "  Time       1 d 6 h, 10 h 30 min of it waiting, 2 planned exits",
        "  Ledger     /runs/train-1a2b",
        "  Report     lightning-green report /runs/train-1a2b",
    ]


def test_saving_can_be_negative_or_zero():
    assert block(carbon__saving_pct=-12.34)[3].endswith("a saving of -12.3 %")
    assert block(carbon__saving_pct=-0.0001)[3].endswith("a saving of 0.0 %")


def test_number_of_nodes_is_printed():
    assert block(energy__nodes=2)[1].startswith("  Energy     1.500 kWh of 2 nodes: cpu ")


def test_units_fit_small_and_large_values():
    lines = block(energy__kwh=0.0005, carbon__gco2e=12345.6, carbon__exits=1)
    assert lines[1].startswith("  Energy     0.5000 Wh: ")
    assert lines[2] == "  Emissions  12.35 kgCO2e"
    assert lines[4].endswith("1 planned exit")


def test_saving_has_its_uncertainty_and_its_share_of_the_work():
    lines = block(carbon__saving_std_pct=1.25, carbon__known_share=0.8, carbon__gco2e_of_known=300.0)
    assert lines[3] == (
        "  Run now    400.0 gCO2e for the 80.0 % of the work whose intensity is known, which emitted 300.0 gCO2e: "
        "a saving of 25.0 % ± 1.2 %"
    )


def test_every_source_of_intensity_is_named_with_its_share():
    sources = {"electricity-maps (measured)": 240.0, "annual mean Germany 2024 (static)": 60.0}
    expected = "  Intensity  electricity-maps (measured) for 80.0 %, annual mean Germany 2024 (static) for 20.0 %"
    assert expected in block(carbon__sources=sources)


def test_kinds_of_signals_are_apart():
    other = {"carbon/gco2e_average_direct": 20.0, "carbon/counterfactual_gco2e_average_direct": 25.0}
    other |= {"carbon/gco2e_of_known_average_direct": 20.0, "carbon/saving_pct_average_direct": 20.0}
    lines = totals_block({**SUMMARY, **other}, None, {}).splitlines()
    assert "  Emissions  300.0 gCO2e" in lines
    assert "  Emissions  20.00 gCO2e (average/direct)" in lines
    assert "  Run now    25.00 gCO2e (average/direct): a saving of 20.0 %" in lines


def test_unknown_emissions_are_not_printed_as_zero():
    why = "the file /grid.csv does not exist"
    unknown = {"carbon__gco2e": None, "carbon__counterfactual_gco2e": None, "carbon__saving_pct": None}
    lines = block(carbon__unknown_because=why, **unknown)
    assert lines[2] == "  Emissions  unknown: the file /grid.csv does not exist"
    assert not any("Run now" in line or " 0.000 gCO2e" in line for line in lines)


def test_unknown_saving_is_not_printed():
    lines = block(carbon__counterfactual_gco2e=None, carbon__saving_pct=None)
    assert "  Emissions  300.0 gCO2e" in lines
    assert "  Run now    unknown: no intensity is known for the time without waiting" in lines
    assert not any("saving" in line for line in lines)


def test_energy_without_intensity_is_printed():
    assert "  Excluded   0.3000 kWh: no carbon intensity was available at that time" in block(carbon__unpriced_kwh=0.3)
    unknown = block(carbon__unpriced_kwh=1.5, carbon__gco2e=None, carbon__counterfactual_gco2e=None)
    assert not any("Excluded" in line for line in unknown)  # all energy, which another line reports


def test_marginal_signal_is_labeled():
    marginal = {name: value for name, value in SUMMARY.items() if "gco2e" not in name}
    marginal |= {"carbon/gco2e_marginal": 300.0, "carbon/counterfactual_gco2e_marginal": 400.0}
    lines = totals_block(marginal, None, {}).splitlines()
    assert lines[2] == "  Emissions  300.0 gCO2e (marginal signal)"
    assert lines[3].startswith("  Run now    400.0 gCO2e (marginal signal)")


def test_energy_without_meter_has_no_components():
    nothing = {name: value for name, value in SUMMARY.items() if not name.endswith(("cpu_kwh", "gpu_kwh", "ram_kwh"))}
    assert totals_block({**nothing, "energy/kwh": None}, None, {}).splitlines()[1] == "  Energy     unknown"


def test_part_that_cannot_be_uploaded_does_not_stop_the_others(tmp_path):
    program = tmp_path / "wandb"
    program.write_text('#!/bin/sh\necho "$5" >> uploads\ncase "$5" in *damaged*) exit 1;; esac\n')
    program.chmod(0o755)
    folders = [f"my runs/{part}-ab12cd34" for part in ("first", "damaged", "last")]
    variables = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    subprocess.run(["sh", "-c", wandb_sync_line({"wandb_folders": folders})], cwd=tmp_path, env=variables, check=True)
    assert (tmp_path / "uploads").read_text().splitlines() == folders


@pytest.mark.parametrize("record", [{}, {"wandb_folders": []}])
def test_missing_run_directory_and_wandb_are_omitted(record):
    assert not any(line.split()[0] in ("Ledger", "W&B") for line in block(record, folder=None))


def test_command_uploads_all_parts_of_a_wandb_run_as_one():
    folders = [f"/runs/wandb/offline-run-2024050{day}_120000-ab12cd34" for day in (1, 2)]
    line = f'for part in {folders[0]} {folders[1]}; do wandb sync --yes --id ab12cd34 "$part"; done'
    assert wandb_sync_line({"wandb_folders": folders}) == line
    assert wandb_sync_line({"wandb_folders": folders[:1]}) == f"wandb sync --yes --id ab12cd34 {folders[0]}"
    assert block({"wandb_folders": folders})[-1] == f"  W&B        {line}"
