import json

import pytest

from lightning_green.run.pause_rule import (
    PAUSE_RULE_VARIABLE,
    PauseAt,
    PauseRule,
    check_file,
    read_check,
    write_check,
)

COMMAND = ["python", "train.py", "--lr", "1"]
EPOCH = PauseRule(PauseAt.EPOCH, "a counter: it is not restored")


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text("1")
    return tmp_path


def test_rule_of_a_command_is_read_again():
    assert read_check(COMMAND) == (None, False)
    write_check(COMMAND, EPOCH)
    assert read_check(COMMAND) == (EPOCH, True)
    assert read_check([*COMMAND, "--seed", "2"]) == (None, False)
    write_check(COMMAND, None)
    assert read_check(COMMAND) == (None, False)


def test_rule_of_a_changed_script_does_not_apply(directory):
    write_check(COMMAND, EPOCH)
    (directory / "train.py").write_text("2")
    assert read_check(COMMAND) == (EPOCH, False)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"pause_at": "noon", "reason": ""}', "null"])
def test_damaged_record_is_no_record(content):
    write_check(COMMAND, EPOCH)
    check_file(COMMAND).write_text(content)
    assert read_check(COMMAND) == (None, False)


def test_record_of_another_version_does_not_apply():
    write_check(COMMAND, EPOCH)
    record = json.loads(check_file(COMMAND).read_text())
    check_file(COMMAND).write_text(json.dumps({**record, "version": 99}))
    assert read_check(COMMAND) == (EPOCH, False)


def test_stricter_rule_counts():
    never = PauseRule(PauseAt.NEVER, "x")
    assert PauseRule().join(EPOCH) == EPOCH.join(PauseRule()) == EPOCH
    assert never.join(EPOCH) == EPOCH.join(never) == never


@pytest.mark.parametrize("rule", [EPOCH, PauseRule(PauseAt.NEVER, ""), PauseRule()])
def test_rule_is_passed_in_the_environment(monkeypatch, rule):
    monkeypatch.setenv(PAUSE_RULE_VARIABLE, str(rule))
    assert PauseRule.from_environment() == rule


@pytest.mark.parametrize("value", [None, "", "noon: x"])
def test_no_rule_in_the_environment(monkeypatch, value):
    if value is not None:
        monkeypatch.setenv(PAUSE_RULE_VARIABLE, value)
    assert PauseRule.from_environment() == PauseRule()
