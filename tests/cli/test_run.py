"""Wrong input on the command line: the message and the exit code."""

import pytest
from typer.testing import CliRunner

from lightning_green.cli.main import app


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


@pytest.mark.parametrize("arguments", [["run"], ["run", "--"], ["run", "--fresh", "--"]])
def test_missing_command_is_wrong_usage(arguments):
    code, output = invoke(*arguments)
    assert code == 2
    assert output == (
        "lightning-green: The command is missing. Add it after `--`, for example: "
        "lightning-green run -- python train.py\n"
    )


@pytest.mark.parametrize(
    ("clock", "message"),
    [
        ("noon", "should be"),
        ("simulated:start=2024-05-02", "time zone"),
        ("simulated:start=2024-05-02T00:00:00Z,batch=x", "`batch` should be a number of seconds"),
        ("simulated:start=2024-05-02T00:00:00Z,batch=-1", "0 or more"),
        ("simulated:start=2024-05-02T00:00:00Z,lunch=1", "simulated:start=TIME,batch=S"),
    ],
)
def test_invalid_clock_is_wrong_usage(tmp_path, clock, message):
    code, output = invoke("run", "--run-dir", tmp_path / "run", "--clock", clock, "--", "true")
    assert code == 2
    assert f"`--clock {clock}` cannot be used" in output
    assert message in output
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("launcher", ["slurm", "kubernetes"])
@pytest.mark.parametrize("name", ["--clock", "LIGHTNING_GREEN_CLOCK"])
def test_simulated_clock_releases_no_machine(tmp_path, monkeypatch, launcher, name):
    clock, words = "simulated:start=2024-05-02T00:00:00Z", ["--launcher", launcher]
    if name == "--clock":
        words += [name, clock]
    else:
        monkeypatch.setenv(name, clock)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    code, output = invoke("run", "--run-dir", tmp_path / "run", *words, "--", "true")
    assert code == 2
    assert f"cannot be used with `{name}" in " ".join(output.split())
    assert not (tmp_path / "run").exists()


def test_unwritable_run_directory_is_reported(tmp_path):
    (tmp_path / "file").touch()
    code, output = invoke("run", "--run-dir", tmp_path / "file", "--", "true")
    assert code == 2
    assert "cannot be written" in output
    assert "--run-dir" in output


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"schema": 999}'])
@pytest.mark.parametrize("command", ["run", "status"])
def test_unreadable_run_directory_is_reported_and_unchanged(tmp_path, command, content):
    (tmp_path / "run.json").write_text(content)
    arguments = ["run", "--run-dir", tmp_path, "--", "true"] if command == "run" else ["status", tmp_path]
    code, output = invoke(*arguments)
    assert code == 2
    assert "Move the directory away" in output
    assert len(output.splitlines()) == 1
    assert (tmp_path / "run.json").read_text() == content  # the file is unchanged


def test_status_of_another_directory_is_wrong_usage(tmp_path):
    code, output = invoke("status", tmp_path)
    assert code == 2
    assert "is not a run directory" in output
