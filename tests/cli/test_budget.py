"""The command ``lightning-green budget``."""

import json

import pytest
from typer.testing import CliRunner

from lightning_green.budget import BudgetDirectory, Limits
from lightning_green.cli.main import app
from tests.budget.test_directory import run


def call(*words):
    result = CliRunner().invoke(app, ["budget", *map(str, words)])
    return result.exit_code, result.output


@pytest.fixture
def shared(tmp_path):
    directory = BudgetDirectory(tmp_path / "shared")
    directory.join(Limits(kwh=2.0))
    directory.write(run(tmp_path / "train-a", 4))
    directory.write(run(tmp_path / "train-b", 1, ends=True))
    return directory


def test_table_has_each_run_the_total_and_the_limit(shared):
    code, output = call(shared.path)
    assert code == 0
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in output.splitlines()}
    assert rows["train-a"] == "killed 1.200 kWh measured"
    assert rows["train-b"] == "finished 0.3000 kWh measured"
    assert rows["Total"] == "2 runs 1.500 kWh measured"
    assert (rows["Limit"], rows["Used"]) == ("2.000 kWh", "75.0 %")


def test_used_budget_has_the_exit_code_1(shared):
    assert call(shared.path, "--kwh", 1.4)[0] == 1
    assert call(shared.path)[0] == 1
    assert call(shared.path, "--kwh", 9)[0] == 0


def test_json(shared):
    code, output = call(shared.path, "--gco2e", 500, "--price", 0.5, "--json")
    found = json.loads(output)
    assert code == 0
    assert found["limits"] == {"kwh": 2.0, "gco2e": 500.0, "cost": None}
    assert found["used"]["kwh"] == pytest.approx(1.5)
    assert found["used"]["cost"] == pytest.approx(1.125)
    assert sorted(one["state"] for one in found["each"]) == ["finished", "killed"]


def test_limits_create_a_budget(tmp_path):
    code, output = call(tmp_path / "new", "--cost", 5)
    assert code == 0
    assert "5.00" in output
    assert BudgetDirectory(tmp_path / "new").read().limits == Limits(cost=5.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "has no budget. To create one"),
        (["--kwh", "-1"], "`kwh` should be a number above 0"),
        (["--kwh", "nan"], "`kwh` should be"),
        (["--price", "none.csv"], "`--price` should be"),
    ],
)
def test_wrong_usage(tmp_path, words, message):
    code, output = call(tmp_path, *words)
    assert code == 2
    assert message in output


def test_directory_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    assert call(tmp_path / "file")[0] == 2
    assert call(tmp_path / "file", "--kwh", 3)[0] == 2
