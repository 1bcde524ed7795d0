"""PUE as a constant, by site, and over time."""

import pickle

import pytest

from lightning_green import EmissionsTracker
from lightning_green.run.pue import SITE_VARIABLE, PueSeries, build_pue
from tests.helpers.ledgers import read_records
from tests.helpers.sessions import START, advance


def write(path, *rows):
    path.write_text("\n".join(["datetime,pue", *rows]) + "\n")
    return str(path)


def test_site_selects_the_value(monkeypatch):
    sites = {"frankfurt": 1.5, "oslo": 1.1}
    assert build_pue(sites, "oslo") == 1.1
    monkeypatch.setenv(SITE_VARIABLE, "frankfurt")
    assert build_pue(sites) == 1.5
    assert build_pue(sites, "oslo") == 1.1  # the argument takes precedence
    assert EmissionsTracker(pue=sites)._options.pue == 1.5


def test_site_of_a_mapping_may_have_a_file(tmp_path):
    path = write(tmp_path / "pue.csv", "2024-05-02T00:00Z,1.2")
    assert build_pue({"a": path}, "a") == PueSeries((START.timestamp(),), (1.2,))


@pytest.mark.parametrize(
    ("value", "site", "message"),
    [
        ({"a": 1.2}, None, "no site is given, and it has a. Set `site` or LIGHTNING_GREEN_SITE"),
        ({"a": 1.2, "b": 1.1}, "c", "the site is 'c', and it has a, b"),
        ({}, None, "no site is given"),
        ({"a": 0.9}, "a", "`pue` should be a number of at least 1, got 0.9"),
        (1.2, "a", "`site` should be a key of a mapping"),
    ],
)
def test_wrong_site_is_reported(monkeypatch, value, site, message):
    monkeypatch.delenv(SITE_VARIABLE, raising=False)
    with pytest.raises(ValueError, match=message):
        build_pue(value, site)


def test_constant_ignores_the_variable(monkeypatch):
    monkeypatch.setenv(SITE_VARIABLE, "elsewhere")
    assert build_pue(1.2) == 1.2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["2024-05-01T00:00,1.2"], "line 2: .* no time zone"),
        (["2024-05-01T00:00Z,1.2", "2024-05-01T00:00Z,1.3"], "line 3: .* occurs twice"),
        (["2024-05-01T00:00Z,0.9"], "line 2: the PUE should be a number of at least 1, got '0.9'"),
        (["2024-05-01T00:00Z,"], "line 2: the PUE should be"),
        ([], "has no rows"),
    ],
)
def test_wrong_file_is_reported(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        build_pue(write(tmp_path / "pue.csv", *rows))


def test_mean_is_weighted_by_time():
    pue = PueSeries((0.0, 10.0, 20.0), (1.0, 2.0, 4.0))
    assert pue.mean(5.0, 25.0) == pytest.approx((5 * 1.0 + 10 * 2.0 + 5 * 4.0) / 20)
    assert (pue.mean(12.0, 12.0), pue.mean(-5.0, -1.0), pue.mean(30.0, 40.0)) == (2.0, 1.0, 4.0)
    assert pickle.loads(pickle.dumps(pue)) == pue


def test_events_record_the_pue_of_their_interval(opened):
    series = PueSeries((START.timestamp(), START.timestamp() + 3600), (1.1, 1.5))
    run, _ = opened(grid=100.0, pue=series)
    advance(run, 12)  # 2 h at 300 W
    summary = run.summary()
    assert summary["energy/kwh"] == pytest.approx(0.6)
    assert summary["carbon/gco2e"] == pytest.approx(100.0 * 0.3 * (1.1 + 1.5))
    assert {record["pue"] for record in read_records(run.path) if "pue" in record} >= {1.1, 1.5}
