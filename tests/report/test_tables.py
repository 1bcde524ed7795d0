"""Tables of decisions and of the timeline."""

from datetime import datetime, timedelta, timezone

from lightning_green.energy.meter import Energy
from lightning_green.ledger.events import Decision, Paused, Sample, Started
from lightning_green.ledger.measurement import Intensity, Measurement
from lightning_green.report import tables
from lightning_green.report.tables import decision_table, timeline_table

START = datetime(2024, 5, 2, tzinfo=timezone.utc)


def event(kind, hours, **given):
    """Return an event after some hours at 1 kW and 100 gCO2e/kWh."""
    measured = Measurement(
        joules={"gpu": Energy(3.6e6 * hours, "measured")},
        intensity=Intensity(value=100.0, kind="average/lifecycle", source="test"),
        pue=1.0,
        power=1.0,
        speed=1.0,
        data_wait_s=0.0,
    )
    time = START + timedelta(hours=hours)
    return kind(
        time_utc=time.isoformat(), mono_s=3600.0 * hours, attempt=1, state="running", measured=measured,
        phase="training", **given,
    )  # fmt: skip


def test_decisions_have_their_reason_and_the_saving_in_percent():
    made = [
        event(Started, 0),
        event(Decision, 1, action="exit", until=START, saving=0.25, reason="Exit.", global_step=7),
    ]
    assert decision_table(made).rows == [
        ["2024-05-02T01:00:00+00:00", 7, "exit", START.isoformat(), 25.0, None, "Exit."]
    ]


def test_decision_without_a_saving_has_none():
    (row,) = decision_table([event(Decision, 1, action="run")]).rows
    assert row[3:6] == [None, None, None]


def test_timeline_has_emissions_and_intensity_over_hours():
    table = timeline_table([event(Started, 0), event(Sample, 1), event(Paused, 3)])
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["hours"] for row in rows] == [0.0, 1.0, 3.0]
    assert [round(row["kwh"], 6) for row in rows] == [0.0, 1.0, 3.0]
    assert [row["gco2e"] and round(row["gco2e"], 6) for row in rows][1:] == [100.0, 300.0]
    assert {row["intensity"] for row in rows} == {100.0}


def test_long_timeline_is_thinned(monkeypatch):
    monkeypatch.setattr(tables, "MOST_ROWS", 5)
    rows = timeline_table([event(Started, 0), *(event(Sample, hour) for hour in range(1, 101))]).rows
    assert [row[0] for row in rows] == [0.0, 25.0, 50.0, 75.0, 100.0]


def test_timeline_without_events_is_empty():
    assert timeline_table([]).rows == []
