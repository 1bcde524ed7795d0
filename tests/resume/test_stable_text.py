"""Time stamps, random identifiers and temporary paths count as equal; dates of the past and other numbers do not."""

import datetime
import pathlib
import time

import numpy as np
import pytest

from lightning_green.resume.description import describe

NOW = datetime.datetime(2026, 11, 26, 12, 44, 59, tzinfo=datetime.timezone.utc)


@pytest.fixture
def today(monkeypatch):
    """Have it be the day of the dates below."""
    monkeypatch.setattr("lightning_green.resume.stable_text.time.time", NOW.timestamp)


@pytest.mark.usefixtures("today")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-26", "<time>"),
        ("run 2026/11/26 12:44", "run <time>"),
        ("20261126_124459", "<time>"),
        ("20261126-1244_resnet50", "<time>_resnet50"),
        ("20261126124459", "<time>"),
        ("20261126_124459_123456", "<time>"),
        ("261126_124459", "<time>"),
        ("12:44:59", "<time>"),
        ("at 12:44:59.123", "at <time>"),
        ("2026-11-26T12:44:59.123456+00:00", "<time>"),
        ("2026-11-26T12:44:59Z", "<time>"),
        ("20261126T124459Z", "<time>"),
        ("outputs/2026-11-26/12-44-59/model", "outputs/<time>/model"),
        ("runs/Nov26_12-44-59_host", "runs/<time>_host"),
        ("Thu Nov 26 12:44:59 2026", "<time>"),
        ("26 Nov 2026", "<time>"),
        ("run-6f9619ff-8b86-d011-b42d-00cf4fc964ff", "run-<id>"),
        ("run-6F9619FF8B86D011", "run-<id>"),
        ("a1b2c3d4_x", "<id>_x"),
        ("<Thing object at 0x7f12ab34cd56>", "<Thing object>"),
        ("/tmp/pytest-of-me/pytest-0/data.csv", "<temporary path>"),
        ("file in /tmp/a/b, and more", "file in <temporary path>, and more"),
    ],
)
def test_changing_parts_of_strings_are_replaced(text, expected):
    assert describe(text) == expected


@pytest.mark.usefixtures("today")
@pytest.mark.parametrize(
    "text",
    [
        "", "resnet50", "lr0.001", "v1.2", "2048", "deadbeef", "facade", "effaced", "1e-3", "1.5e-08", "0.20261126",
        "efficientnet_b0", "vit_base_patch16_224", "layers-12-24-36", "ade20k", "3.11.7", "cuda:0", "0x10", "12:30",
        "00:12:00:00", "/tmpdata/x", "data/tmp/x", "s3://bucket/tmp/x", "wiki_20200301", "12345678", "1234567890",
        "2, 4, 8, 16", "mars10_12", "May I", "10.0.0.1:8080", "N(0, 1)", "1-2-3", "192-168-255", "checkpoint_20250230",
    ],
)  # fmt: skip
def test_other_strings_are_unchanged(text):
    assert describe(text) == text
    assert describe(pathlib.PurePosixPath(text or "x")) == (text.replace("s3://", "s3:/") or "x")


@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("days", [0, -399, 399])
def test_epoch_times_within_400_days_are_replaced(scale, days):
    seconds = time.time() + 86400 * days
    assert describe(seconds * scale) == describe(int(seconds * scale)) == "<time>"
    assert describe(np.float64(seconds * scale)) == "<time>"


LONG_AGO = pytest.param(time.time() - 401 * 86400, id="401 days ago")


@pytest.mark.parametrize("value", [LONG_AGO, 42, 1e9, 3e9, 2**31, 2**63, 1e30, True])
def test_other_numbers_are_unchanged(value):
    assert describe(value) == value


@pytest.mark.usefixtures("today")
@pytest.mark.parametrize(
    "value",
    [
        "2015-01-01", "data_2015-01-01.csv", "20150101_120000", "01.02.2015", "1 Jan 2015", datetime.date(2015, 1, 1),
        datetime.datetime(2015, 1, 1), np.datetime64("2015-01-01"),
    ],
)  # fmt: skip
def test_past_date_is_a_setting(value):
    assert "<time>" not in describe(value)
    assert "2015" in describe(value)


@pytest.mark.usefixtures("today")
@pytest.mark.parametrize(
    "value", [NOW, NOW.date(), NOW.time(), np.datetime64("2026-11-26"), time.gmtime(NOW.timestamp()), NOW.isoformat()]
)
def test_current_time_is_a_time_stamp(value):
    assert describe(value) == "<time>"
