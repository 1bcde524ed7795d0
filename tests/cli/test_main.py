import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.cli.messages import fail


def test_without_arguments_all_commands_are_listed():
    result = CliRunner().invoke(app, [])
    for command in ("run", "status", "check", "backtest", "compress", "grid"):
        assert f" {command} " in result.output


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
