"""``lightning-green backtest`` in a subprocess."""

import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from typer.testing import CliRunner

from lightning_green.backtest import registry as backtest_registry
from lightning_green.backtest.backtest import Backtest
from lightning_green.backtest.zone_archive import read_archive
from lightning_green.cli.main import app
from lightning_green.planning import Level
from lightning_green.utilities import registry
from tests.helpers.zone_archives import make_archive, write_archive

KEYS = {
    "saving_pct", "worse_than_run_now_pct", "mean_delay_hours", "deadline_misses", "exits_per_run", "share_of_optimal",
}  # fmt: skip
POLICIES = [
    "run_now", "deferred_start", "lowest_slots", "threshold", "online", "static_throttle", "planner",
    "planner_no_forecast", "optimal",
]  # fmt: skip
SMALL = ["--work-hours", "4", "--window-hours", "12", "--every-days", "4"]


def call(*arguments):
    line = [sys.executable, "-m", "lightning_green", "backtest", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_archive(make_archive(days=20), tmp_path_factory.mktemp("zone"))


def test_json_contains_zone_runs_and_policies(files):
    done = call("--actual", files[0], "--forecast", files[1], "--throttle", "0.78:0.90", *SMALL, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert set(result) == {"zone", "runs", "policies"}
    assert (result["zone"], result["runs"]) == ("ZZ", 5)
    assert list(result["policies"]) == POLICIES
    assert all(set(row) == KEYS for row in result["policies"].values())


def test_static_throttle_needs_a_throttle_level(files):
    done = call("--actual", files[0], *SMALL, "--json", "--modes", "hold", "--kind", "direct", "--resume-hours", "0")
    result = json.loads(done.stdout)
    assert list(result["policies"]) == [name for name in POLICIES if name != "static_throttle"]
    assert all(row["exits_per_run"] == 0 for row in result["policies"].values())


def test_several_zones_give_a_table_a_mean_and_a_figure(files, tmp_path):
    pytest.importorskip("matplotlib", reason="the figure needs matplotlib")
    other = write_archive(make_archive(days=20, seed=1), tmp_path, "YY")
    pairs = ["--actual", files[0], "--forecast", files[1], "--actual", other[0], "--forecast", other[1]]
    done = call(*pairs, *SMALL, "--plot", tmp_path / "figure.png")
    assert done.returncode == 0, done.stderr
    assert "saving %" in done.stdout
    assert "mean" in done.stdout
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    result = json.loads(call(*pairs, *SMALL, "--json").stdout)
    assert result["zone"] == "mean"
    assert [zone["zone"] for zone in result["zones"]] == ["ZZ", "YY"]
    both = [zone["policies"]["planner"]["saving_pct"] for zone in result["zones"]]
    assert result["policies"]["planner"]["saving_pct"] == pytest.approx(sum(both) / 2)


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("2023-03-02T05:00:00Z", "2023-03-02T05:00:00", "line 31: `datetime` should have a time zone"),
        ("2023-03-02T05:00:00Z", "2023-03-02T06:00:00Z", "line 31: `datetime` should be an hour after"),
        ("2023-03-02T05:00:00Z", "yesterday", "line 31: `datetime` should be like"),
        (
            "2023-03-02T05:00:00Z,",
            "2023-03-02T05:00:00Z,-",
            "line 31: `carbon_intensity` should be a number, 0 or more",
        ),
        ("2023-03-02T05:00:00Z,", "2023-03-02T05:00:00Z,nan,", "line 31: the row should have 3 fields"),
        ("carbon_intensity,", "co2,", "has no column `carbon_intensity`"),
    ],
)
def test_invalid_intensity_file_is_rejected_with_its_line(files, tmp_path, old, new, message):
    bad = tmp_path / "bad.csv"
    text = files[0].read_text()
    assert old in text
    bad.write_text(text.replace(old, new))
    done = call("--actual", bad, *SMALL)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",lifecycle,", ",direct,", "`issued_at` should be later than in the row before it"),
        (",direct,", ",marginal,", '`kind` should be "lifecycle" or "direct", got \'marginal\''),
        (",h01,", ",hour1,", "the hours ahead should be h00, h01, ... without a gap, got `h02` too early"),
        ("2023-03-02T00:00:00Z", "2023-03-02T00:30:00Z", "`issued_at` should be a full hour"),
    ],
)
def test_invalid_forecast_file_is_rejected(files, tmp_path, old, new, message):
    bad = tmp_path / "bad_96h.csv"
    text = files[1].read_text()
    assert old in text
    bad.write_text(text.replace(old, new))
    done = call("--actual", files[0], "--forecast", bad, *SMALL, "--kind", "direct" if "direct" in new else "lifecycle")
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_forecast_file_of_another_kind_is_rejected(files, tmp_path):
    other = tmp_path / "direct_96h.csv"
    other.write_text("".join(line for line in files[1].open() if ",lifecycle," not in line))
    done = call("--actual", files[0], "--forecast", other, *SMALL)
    assert done.returncode == 2
    assert "has no forecast of the kind 'lifecycle'" in done.stderr


def test_every_option_is_passed_to_the_backtest(files):
    """All options together give the result of the library."""
    pair = ["--actual", files[0], "--forecast", files[1]]
    options = {
        "--work-hours": "5", "--window-hours": "14", "--hold-power": "0.1", "--resume-hours": "0.4",
        "--throttle": "0.78:0.90", "--start-hour": "3", "--every-days": "3", "--lag-hours": "2", "--kind": "direct",
        "--modes": "hold",
    }  # fmt: skip
    words = [word for pair in options.items() for word in pair]
    done = call(*pair, *words, "--json")
    assert done.returncode == 0, done.stderr
    test = Backtest(
        work_hours=5, window_hours=14, hold_power=0.1, resume_hours=0.4, throttle=(Level(0.78, 0.9),), start_hour=3,
        every_days=3, lag_hours=2, pauses=frozenset({"hold"}),
    )  # fmt: skip
    zone = read_archive(*files, "direct")
    expected = {"zone": "ZZ", "runs": len(test.starts(zone)), "policies": test.run(zone)}
    assert json.loads(done.stdout) == json.loads(json.dumps(expected))


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--work-hours", "0"], "`work_hours` should be a number above 0"),
        (["--hold-power", "1.2"], "`hold_power` should be"),
        (["--modes", "sleep"], "--modes should be exit, hold or both, such as exit,hold; got 'sleep'"),
        (["--kind", "marginal"], "`kind` should be"),
        (["--throttle", "0.9"], "`--throttle 0.9` cannot be used: A level should be"),
        (["--throttle", "1.2:0.9"], "`--throttle 1.2:0.9` cannot be used: `power` should be"),
        (["--forecast", "a.csv", "--forecast", "b.csv"], "Give one --forecast for each --actual"),
        (["--forecast", "missing.csv"], "missing.csv cannot be read"),
        (["--window-hours", "1000"], "too few for a run"),
        (["--modes", ","], "--modes should be exit, hold or both"),
        (["--start-hour", "24"], "`start_hour` should be a whole number from 0 to 23"),
        (["--every-days", "0"], "`every_days` should be a whole number from 1"),
        (["--lag-hours", "-1"], "`lag_hours` should be a whole number from 0"),
        (["--resume-hours", "-1"], "`resume_hours` should be"),
    ],
)
def test_wrong_usage_exits_with_2_and_an_explanation(files, arguments, message):
    done = call("--actual", files[0], *arguments)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("package_that_is_not_installed:policy", "No module named 'package_that_is_not_installed'"),
        (f"{__name__}:no_such_policy", "no_such_policy"),
        (f"{__name__}:KEYS", "should be a function or a class with __call__"),
    ],
)
def test_policy_that_cannot_be_loaded_exits_with_2_and_its_name(files, monkeypatch, value, message):
    policies = backtest_registry.POLICIES
    points = [EntryPoint("other", value, policies.group)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points if group == policies.group else [])
    monkeypatch.delitem(policies.__dict__, "_installed", raising=False)
    done = CliRunner().invoke(app, ["backtest", "--actual", str(files[0]), *SMALL])
    policies.__dict__.pop("_installed", None)
    assert done.exit_code == 2, done.exception
    assert "The policy 'other' cannot be loaded: " in done.stderr
    assert message in done.stderr


def test_return_time_and_perfect_hours_are_options(files):
    options = ["--actual", files[0], "--forecast", files[1], *SMALL, "--json"]
    result = json.loads(call(*options, "--return-time", "90min", "--perfect-hours", "12", "--out-power", "0.1").stdout)
    archive = read_archive(files[0], files[1])
    test = Backtest(
        work_hours=4, window_hours=12, every_days=4, return_hours=1.5, perfect_hours=12, out_power=0.1
    )  # fmt: skip
    assert result["policies"] == test.run(archive)
    assert all(row["deadline_misses"] == 0 for row in result["policies"].values())
    wrong = call(*options, "--return-time", "soon")
    assert wrong.returncode == 2
    assert "`return_time` should be a duration" in wrong.stderr


def test_price_compares_emissions_and_cost(files, tmp_path):
    prices = tmp_path / "prices.csv"
    rows = ["datetime,price"]
    for day in range(1, 21):
        rows += [f"2023-03-{day:02d}T{hour:02d}:00Z,{0.1 if hour < 6 else 0.3}" for hour in range(24)]
    prices.write_text("\n".join(rows))
    line = ["--actual", files[0], "--forecast", files[1], *SMALL, "--price", prices, "--carbon-price", "0.1"]
    done = call(*line)
    assert done.returncode == 0, done.stderr
    assert "carbon price 0.1 per kg CO2e" in done.stdout
    assert [row.split()[0] for row in done.stdout.splitlines()[2:]] == [
        "objective",
        "run_now",
        "carbon",
        "cost",
        "both",
    ]
    result = json.loads(call(*line, "--json").stdout)
    assert set(result["objectives"]) == {"run_now", "carbon", "cost", "both"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--price", "0.3"], "Give --price and --carbon-price together"),
        (["--price", "none.csv", "--carbon-price", "0.1"], "exists"),
        (["--price", "0.3", "--carbon-price", "-1"], "carbon_price"),
        (["--price", "0.3", "--carbon-price", "1", "--plot", "x.png"], "no --plot"),
    ],
)
def test_wrong_price_is_reported(files, arguments, message):
    result = CliRunner().invoke(app, ["backtest", "--actual", str(files[0]), *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
