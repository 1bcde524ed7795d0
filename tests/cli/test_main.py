import os
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

import lightning_green
from lightning_green.cli.main import COMMANDS, app
from lightning_green.cli.messages import fail


def test_without_arguments_all_commands_are_listed():
    result = CliRunner().invoke(app, [])
    for command in COMMANDS:
        assert f" {command.name} " in result.output


def test_version():
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"lightning-green {lightning_green.__version__}\n")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda one: one.name)
def test_help_in_the_list_is_that_of_the_command(command):
    assert command.load().help.splitlines()[0] == command.help


def test_list_of_commands_imports_none_of_them():
    code = (
        "import sys\nfrom lightning_green.cli.main import app\n"
        "try:\n    app(['--help'])\nfinally:\n"
        "    print(sorted({'torch', 'numpy', 'httpx', 'lightning_green.cli.run'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frob"], "No such command 'frob'. See `lightning-green --help`."),
        (["meter"], "No such command 'meter'. Did you mean 'meters'? See `lightning-green --help`."),
        (["--frob"], "No such option: --frob. See `lightning-green --help`."),
        (["status"], "Missing argument"),
        (["grid", "show", "--hours", "x"], "Invalid value for '--hours':"),
        (["grid", "shov"], "No such command 'shov'. Did you mean 'show'"),
    ],
)
def test_wrong_usage_is_one_line_with_the_remedy(arguments, message):
    result = CliRunner().invoke(app, arguments, prog_name="lightning-green")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"lightning-green: {message}")
    assert line.endswith("--help`.")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_lists_commands_and_options(shell):
    def complete(line):
        words = {"_TYPER_COMPLETE_ARGS": line, "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        variables = {
            **os.environ,
            **words,
            "_LIGHTNING_GREEN_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        }
        command = [sys.executable, "-m", "lightning_green"]
        return subprocess.run(command, env=variables, capture_output=True, text=True, check=False).stdout

    assert "status" in complete("lightning-green sta")
    assert "--zone" in complete("lightning-green grid show --zo")


def test_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "lightning_green", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: lightning-green" in done.stdout


def test_command_starts_without_pytorch():
    code = "import sys, lightning_green.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("code", [2, 3])
def test_failure_is_one_line_and_a_code(capsys, code):
    with pytest.raises(typer.Exit) as raised:
        fail("`--run-dir` is missing.", code)
    assert raised.value.exit_code == code
    assert capsys.readouterr().err == "lightning-green: `--run-dir` is missing.\n"
