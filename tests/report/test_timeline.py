"""The timeline shows the content of the ledger."""

import pytest

from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.report.timeline import COLORS
from lightning_green.report.timeline import timeline as draw
from tests.helpers.ledgers import events_of
from tests.helpers.run_records import at, make_record, run_records


def timeline(records, reference=None, **options):
    return draw(events_of(records), None if reference is None else events_of(reference), **options)


def colors_of_bar(axes, row):
    from matplotlib.colors import to_hex

    patches = [patch for patch in axes.patches if abs(patch.get_y() + patch.get_height() / 2 - row) < 0.01]
    return [to_hex(patch.get_facecolor()) for patch in patches]


def test_bar_shows_states_in_their_colors():
    _, bar, _ = timeline(run_records()).axes
    assert colors_of_bar(bar, 0) == [COLORS[state] for state in ("running", "held", "running", "out", "running")]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["this run"]


def test_reference_has_its_own_bar_and_line():
    reference = [make_record(0, "started"), make_record(4, "finished", joules=14.4e6)]
    figure = timeline(run_records(), reference)
    _, bar, emissions = figure.axes
    assert colors_of_bar(bar, 0) == [COLORS["running"]]
    assert len(colors_of_bar(bar, 1)) == 5
    # 4 kWh at 400 against 8.2 MJ at 400 and 7.2 MJ at 200 gCO2e/kWh
    expected = (8.2 * 400 + 7.2 * 200) / 3.6 / 1000
    ends = [line.get_ydata()[-1] for line in emissions.lines if len(line.get_xdata()) > 1 and max(line.get_ydata()) > 0]
    assert ends[:2] == pytest.approx([1.6, expected])
    assert "18 % less than running now" in figure.get_suptitle()


def test_higher_emissions_are_called_more():
    reference = [make_record(0, "started"), make_record(1, "finished", joules=3.6e6)]
    assert "more than running now" in timeline(run_records(), reference).get_suptitle()


def curves(axes):
    """Return the lines of the intensity without that of the deadline."""
    return [line for line in axes.lines if len(set(line.get_xdata())) > 1]


def test_curve_without_grid_has_a_gap_while_the_run_had_exited():
    top = timeline(run_records()).axes[0]
    assert len(curves(top)) == 2
    assert set(curves(top)[0].get_ydata()) == {400.0}
    assert set(curves(top)[1].get_ydata()) == {200.0}


def test_curve_with_grid_reaches_from_start_to_deadline():
    grid = TypicalDay("DE")
    (curve,) = curves(timeline(run_records(), grid=grid).axes[0])
    assert (curve.get_xdata()[0], curve.get_xdata()[-1]) == (at(0), at(14))
    assert curve.get_ydata()[0] == pytest.approx(grid.intensity(at(0)).value)


def test_figure_names_its_sources():
    note = timeline(run_records()).get_supxlabel()
    assert "modelled" in note
    assert "test, average/lifecycle" in note


def test_run_without_grid_is_drawn_without_emissions(tmp_path):
    records = [make_record(0, "started", intensity=None), make_record(2, "finished", joules=1e6, intensity=None)]
    figure = timeline(records)
    assert figure.get_suptitle() == "States of the run"
    figure.savefig(tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").stat().st_size > 10_000


def test_no_events_raises():
    with pytest.raises(ValueError, match="`events` should contain the events of a run"):
        timeline([])
