"""The page about the commands lists all of them, with options and exit codes that exist."""

import re
import shlex
from itertools import takewhile
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from lightning_green.cli.main import COMMANDS, app
from lightning_green.report.run_list import RunSummary
from tests.test_docs import DOCS, code_blocks

PAGE = DOCS / "commands.md"
GROUPS = ("grid", "kubernetes")
LINES = [line for block in code_blocks(PAGE, "bash") for line in block.splitlines()]
EXAMPLES = [shlex.split(line)[1:] for line in LINES if line.startswith("lightning-green ")]
QUICK = [line for line in EXAMPLES if line[0] in ("--version", "--help", "meters", "doctor") or "typical:DE" in line]


def leaves():
    """Return each command with its path."""
    found = {}
    for one in COMMANDS:
        command = one.load()
        if hasattr(command, "commands"):
            found.update({f"{one.name} {name}": sub for name, sub in command.commands.items()})
        else:
            found[one.name] = command
    return found


def page_examples():
    """Yield page and words of each example in the other pages; lines with placeholders in brackets are a syntax."""
    for page in [DOCS.parent / "README.md", *sorted(DOCS.rglob("*.md"))]:
        for block in code_blocks(page, "bash") if page != PAGE else []:
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("lightning-green ") and "[" not in line:
                    words = shlex.split(line, comments=True)[1:]
                    own = takewhile(lambda word: word not in ("|", ">"), words)
                    yield pytest.param(list(own), id=f"{page.stem}: {line}")


def test_every_command_has_an_example():
    given = {" ".join(words[: 2 if words[0] in GROUPS else 1]) for words in EXAMPLES}
    assert set(leaves()) <= given


@pytest.mark.parametrize("words", [*(pytest.param(words, id=" ".join(words)) for words in EXAMPLES), *page_examples()])
def test_example_has_arguments_that_the_command_accepts(words):
    if words[0].startswith("--") or "--help" in words:
        return
    commands = leaves()
    name = " ".join(words[: 2 if words[0] in GROUPS else 1])
    commands[name].make_context(name, words[len(name.split()) :])  # it raises for an unknown option


@pytest.mark.parametrize("words", [words for words in QUICK if "auto:DE" not in words], ids=" ".join)
def test_example_runs(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert result.stdout


def test_exit_codes_are_those_of_the_help():
    rows = dict(re.findall(r"^\| \[`([\w -]+)`\]\(#\w+\) \| (.*) \|$", PAGE.read_text(), re.MULTILINE))
    commands = leaves()
    assert set(rows) == set(commands)
    for name, command in commands.items():
        text = (command.help or "").partition("Exit codes: ")[2] or "0 success; 2 wrong usage."
        codes = re.findall(r"(?:^|; |;\n|and )(\d+)\b", text.partition("of signal")[0])
        assert set(codes) <= set(re.findall(r"\d+", rows[name])), name
        assert set(re.findall(r"(?:^|; )(\d+) ", rows[name])) <= set(re.findall(r"\d+", text)), name


def test_keys_of_the_json_are_documented():
    text = PAGE.read_text()
    assert [key for key in RunSummary("", "").to_json() if f"`{key}`" not in text] == []


def test_every_command_is_in_the_readme():
    readme = (Path(DOCS).parent / "README.md").read_text().partition("## Commands")[2].partition("\n## ")[0]
    assert [one.name for one in COMMANDS if f"`lightning-green {one.name}" not in readme] == []


def test_group_has_the_commands_of_the_list():
    assert list(get_command(app).commands) == [one.name for one in COMMANDS]
