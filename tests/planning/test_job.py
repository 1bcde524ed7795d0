"""Validation and JSON form of jobs and levels."""

import json
import math
from dataclasses import fields, replace
from datetime import datetime, timezone

import pytest

from lightning_green.planning import Job, Level

START = datetime(2024, 5, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"work_hours": 0}, "`work_hours` should be a number above 0 hours, got 0"),
        ({"work_hours": math.nan}, "`work_hours`"),
        ({"work_hours": "24h"}, "`work_hours`"),
        ({"hold_power": 1.2}, "`hold_power` should be a number of at least 0 and at most 1, got 1.2"),
        ({"hold_power": -0.1}, "`hold_power`"),
        ({"resume_cost": -1}, "`resume_cost` should be a number of at least 0 hours at full power, got -1"),
        ({"resume_cost": math.inf}, "`resume_cost`"),
        ({"deadline": datetime(2024, 5, 1)}, "`deadline` should have a time zone"),
        ({"deadline": "36h"}, "`deadline` should be a datetime"),
        ({"levels": ()}, "`levels`"),
        ({"levels": (Level(0.8, 0.9),)}, "The first of `levels`"),
        ({"pauses": {"sleep"}}, "`pauses`"),
        ({"state": "paused"}, "`state`"),
        ({"min_saving": -0.1}, "`min_saving`"),
        ({"min_saving": 5}, "`min_saving`"),
        ({"safety": 2}, "`safety`"),
    ],
)
def test_invalid_job_raises(kwargs, message):
    with pytest.raises(ValueError, match=message):
        Job(**{"work_hours": 1.0, **kwargs})


@pytest.mark.parametrize("text", ["0.78", "a:b", "0.78:", "1.2:0.9", "0.5:0", "nan:1"])
def test_invalid_level_raises(text):
    with pytest.raises(ValueError, match="should be"):
        Level.parse(text)


def test_level_text_round_trip():
    assert Level.parse("0.78:0.90") == Level(0.78, 0.9)
    assert Level.parse(str(Level(0.5, 0.75))) == Level(0.5, 0.75)


@pytest.mark.parametrize(
    "original",
    [
        Job(3.25, deadline=START, levels=(Level(1, 1), Level(0.7812345678, 0.9)), hold_power=0.31, resume_cost=0.07),
        Job(1.0, pauses=frozenset({"hold"}), min_saving=0.02, delay_price=12.5),
        Job(1.0, pauses=frozenset()),
        Job(1.0, exit_cost=0.1, hold_cost=0.2, hold_resume_cost=0.3, caution=0.7, safety=0.11),
    ],
)
def test_json_round_trip(original):
    content = json.loads(json.dumps(original.to_json()))
    assert Job.from_json(content, "out") == replace(original, state="out")


def test_json_contains_every_field_except_the_state():
    assert set(Job(1.0).to_json()) == {field.name for field in fields(Job)} - {"state"}


def test_from_json_ignores_unknown_fields():
    assert Job.from_json({"work_hours": 2.0, "budget": 3.0}, "running") == Job(2.0)


def test_from_json_uses_defaults_for_missing_fields():
    assert Job.from_json({"work_hours": 2.0}, "running") == Job(2.0)


def test_from_json_reads_levels_as_text():
    job = Job.from_json({"work_hours": 2.0, "levels": ["1:1", "0.78:0.90"], "delay_price": 0.0}, "out")
    assert job.levels == (Level(1, 1), Level(0.78, 0.9))
