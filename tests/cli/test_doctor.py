"""``lightning-green doctor`` on this machine."""

import json

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.doctor import Finding


def invoke(*arguments, **variables):
    return CliRunner().invoke(app, ["doctor", "--meter", "250", *map(str, arguments)], env=variables)


@pytest.fixture(autouse=True)
def in_an_empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)


def test_json_is_one_object_with_a_remedy_for_each_no(tmp_path):
    result = invoke("--grid", "typical:DE", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["works"] is True
    assert {*found["findings"][0]} == set(Finding.__dataclass_fields__)
    assert [one for one in found["findings"] if one["level"] == "no" and not one["remedy"]] == []
    assert list(tmp_path.iterdir()) == []


def test_pipe_gets_plain_lines():
    result = invoke("--grid", "typical:DE")
    lines = result.stdout.splitlines()
    assert "\x1b" not in result.stdout
    assert lines[0] == "Meters"
    assert lines[1].split()[:2] == ["ok", "energy"]
    assert lines[-1] == "Energy and carbon intensity are available."
    assert all(line == line.rstrip() for line in lines)


def test_narrow_terminal():
    result = invoke("--grid", "typical:DE", COLUMNS="60")
    assert max(map(len, result.stdout.splitlines())) <= 60
    assert "  ok      intensity: available from" in result.stdout


def test_exits_with_1_without_a_zone():
    result = invoke()
    assert result.exit_code == 1
    assert "export LIGHTNING_GREEN_ZONE=DE" in result.stdout
    assert result.stdout.splitlines()[-1] == "Missing: grid: intensity."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--grid", "missing.csv"], "missing.csv"), (["--meter", "rappel"], "`--meter rappel` cannot be used")],
)
def test_wrong_usage(arguments, message):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
