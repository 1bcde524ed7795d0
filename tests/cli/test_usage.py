"""What the command line says to wrong input: one sentence that names what to change, and an exit code."""

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


@pytest.mark.parametrize("arguments", [["run"], ["run", "--"], ["run", "--fresh", "--"]])
def test_no_command(arguments):
    code, told = invoke(*arguments)
    assert code == 2
    assert told == (
        "lightning-green: The command is missing. Add it after `--`, for example: lightning-green run -- python train.py\n"
    )


@pytest.mark.parametrize(
    ("clock", "told"),
    [
        ("noon", "should be"),
        ("simulated:start=2024-05-02", "time zone"),
        ("simulated:start=2024-05-02T00:00:00Z,batch=x", "`batch` should be a number of seconds"),
        ("simulated:start=2024-05-02T00:00:00Z,batch=-1", "0 or more"),
        ("simulated:start=2024-05-02T00:00:00Z,lunch=1", "simulated:start=TIME,batch=S"),
    ],
)
def test_a_clock_that_means_nothing(tmp_path, clock, told):
    code, said = invoke("run", "--run-dir", tmp_path / "run", "--clock", clock, "--", "true")
    assert code == 2
    assert f"`--clock {clock}` cannot be used" in said
    assert told in said
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    code, said = invoke("run", "--run-dir", tmp_path / "file", "--", "true")
    assert code == 2
    assert "cannot be written" in said
    assert "--run-dir" in said


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"schema": 999}'])
@pytest.mark.parametrize("command", ["run", "status"])
def test_a_folder_that_cannot_be_read(tmp_path, command, content):
    (tmp_path / "run.json").write_text(content)
    arguments = ["run", "--run-dir", tmp_path, "--", "true"] if command == "run" else ["status", tmp_path]
    code, said = invoke(*arguments)
    assert code == 2
    assert "Move the directory away" in said
    assert len(said.splitlines()) == 1
    assert (tmp_path / "run.json").read_text() == content  # nothing recorded is lost


def test_status_of_something_else(tmp_path):
    code, said = invoke("status", tmp_path)
    assert code == 2
    assert "is not a run directory" in said
