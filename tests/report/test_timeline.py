"""What the timeline draws is what the ledger says."""

from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.report.spans import Span
from lightning_green.report.spans import spans as find_spans
from lightning_green.report.timeline import COLORS
from lightning_green.report.timeline import timeline as draw
from tests.helpers.ledgers import events_of

START = datetime(2024, 5, 2, 16, tzinfo=timezone.utc)


def event(hours, name, attempt=1, state="running", joules=0.0, intensity=400.0, node="a", **fields):
    return {
        "v": 1,
        "seq": 0,
        "time_utc": (START + timedelta(hours=hours)).isoformat(),
        "node": node,
        "attempt": attempt,
        "event": name,
        "phase": "training",
        "state": state,
        "joules": {"other": {"value": joules, "quality": "modelled"}},
        "intensity": None if intensity is None else {"value": intensity, "kind": "average/lifecycle", "source": "test"},
        "pue": 1.0,
        "global_step": 0,
        **fields,
    }


def a_run():
    """Run 1 h, hold 2 h, run 1 h, be out for 6 h with the supervisor planning again, restart in 0.5 h, run 1.5 h."""
    return [
        event(0, "started", startup_s=0.0, meter="constant power (other 1000 W), modelled"),
        event(1, "state", state="held", joules=3.6e6),
        event(3, "state", joules=4.6e6),
        event(4, "paused", joules=8.2e6, until=(START + timedelta(hours=10)).isoformat()),
        {"v": 1, "time_utc": (START + timedelta(hours=6)).isoformat(), "node": "a", "attempt": 1, "event": "decision",
         "state": "out", "deadline": (START + timedelta(hours=14)).isoformat()},
        event(10.5, "started", attempt=2, startup_s=1800.0, joules=1.8e6, intensity=200.0),
        event(12, "finished", attempt=2, joules=7.2e6, intensity=200.0),
    ]  # fmt: skip


def spans(records):
    return find_spans(events_of(records))


def timeline(records, reference=None, **options):
    return draw(events_of(records), None if reference is None else events_of(reference), **options)


def at(hours):
    return START + timedelta(hours=hours)


def test_spans_follow_each_other_without_a_gap():
    assert spans(a_run()) == [
        Span(at(0), at(1), "running"),
        Span(at(1), at(3), "held"),
        Span(at(3), at(4), "running"),
        Span(at(4), at(10), "out"),
        Span(at(10), at(12), "running"),
    ]


def test_the_time_after_a_kill_is_not_called_out():
    records = [event(0, "started"), event(2, "sample"), event(5, "started", attempt=2), event(6, "finished", attempt=2)]
    assert [span.state for span in spans(records)] == ["running", "stopped", "running"]


def test_a_second_node_does_not_count_twice():
    second = {"node": "b", "node_rank": 1}
    records = [
        event(0, "node_started", **second),
        event(0, "started"),
        event(1, "state", state="held", **second),
        event(2, "finished"),
    ]
    assert spans(records) == [Span(at(0), at(2), "running")]


def test_spans_of_nothing_are_none():
    assert spans([]) == []
    assert spans([event(0, "sample")]) == []


def colours_of_bar(axes, row):
    from matplotlib.colors import to_hex

    patches = [patch for patch in axes.patches if abs(patch.get_y() + patch.get_height() / 2 - row) < 0.01]
    return [to_hex(patch.get_facecolor()) for patch in patches]


def test_the_bar_has_the_states_in_their_colours():
    _, bar, _ = timeline(a_run()).axes
    assert colours_of_bar(bar, 0) == [COLORS[state] for state in ("running", "held", "running", "out", "running")]
    assert [label.get_text() for label in bar.get_yticklabels()] == ["this run"]


def test_a_reference_gets_a_bar_and_a_line_of_its_own():
    reference = [event(0, "started"), event(4, "finished", joules=14.4e6)]
    figure = timeline(a_run(), reference)
    _, bar, emissions = figure.axes
    assert colours_of_bar(bar, 0) == [COLORS["running"]]
    assert len(colours_of_bar(bar, 1)) == 5
    # 4 kWh at 400 against 8.2 MJ at 400 and 7.2 MJ at 200 gCO2e/kWh
    expected = (8.2 * 400 + 7.2 * 200) / 3.6 / 1000
    ends = [line.get_ydata()[-1] for line in emissions.lines if len(line.get_xdata()) > 1 and max(line.get_ydata()) > 0]
    assert ends[:2] == pytest.approx([1.6, expected])
    assert "18 % less than running now" in figure.get_suptitle()


def test_more_is_called_more():
    reference = [event(0, "started"), event(1, "finished", joules=3.6e6)]
    assert "more than running now" in timeline(a_run(), reference).get_suptitle()


def curves(axes):
    """Return the lines of the intensity, without the deadline's."""
    return [line for line in axes.lines if len(set(line.get_xdata())) > 1]


def test_without_the_grid_the_curve_has_a_gap_where_the_run_was_out():
    top = timeline(a_run()).axes[0]
    assert len(curves(top)) == 2
    assert set(curves(top)[0].get_ydata()) == {400.0}
    assert set(curves(top)[1].get_ydata()) == {200.0}


def test_with_the_grid_the_curve_reaches_from_the_start_to_the_deadline():
    grid = TypicalDay("DE")
    (curve,) = curves(timeline(a_run(), grid=grid).axes[0])
    assert (curve.get_xdata()[0], curve.get_xdata()[-1]) == (at(0), at(14))
    assert curve.get_ydata()[0] == pytest.approx(grid.intensity(at(0)).value)


def test_the_figure_says_where_its_numbers_come_from():
    note = timeline(a_run()).get_supxlabel()
    assert "modelled" in note
    assert "test, average/lifecycle" in note


def test_a_run_without_a_grid_is_drawn_without_emissions(tmp_path):
    records = [event(0, "started", intensity=None), event(2, "finished", joules=1e6, intensity=None)]
    figure = timeline(records)
    assert figure.get_suptitle() == "States of the run"
    figure.savefig(tmp_path / "timeline.png")
    assert (tmp_path / "timeline.png").stat().st_size > 10_000


def test_no_events_are_refused():
    with pytest.raises(ValueError, match="`events` should contain the events of a run"):
        timeline([])
