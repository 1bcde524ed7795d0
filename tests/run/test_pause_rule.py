import json

import pytest

from lightning_green.run.pause_rule import (
    PAUSE_RULE_VARIABLE,
    PauseAt,
    PauseRule,
    check_file,
    file_digests,
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


@pytest.mark.parametrize("changed", ["train.py", "model.py", "c.yaml"])
def test_rule_of_changed_files_does_not_apply(directory, changed):
    command = [*COMMAND, "--config=c.yaml"]
    for name in ("model.py", "c.yaml"):
        (directory / name).write_text("1")
    write_check(command, EPOCH, file_digests(command, ["model.py"]))
    assert read_check(command) == (EPOCH, True)
    (directory / changed).write_text("2")
    assert read_check(command) == (EPOCH, False)


def test_rule_of_a_module_is_that_of_its_files(directory):
    command = ["python", "-m", "train"]
    write_check(command, EPOCH, file_digests(command, [str(directory / "train.py")]))
    (directory / "train.py").unlink()
    assert read_check(command) == (EPOCH, False)


def test_data_of_the_command_may_change(directory):
    command = ["python", "train.py", "start.ckpt"]
    (directory / "start.ckpt").write_text("1")
    write_check(command, EPOCH, file_digests(command, []))
    (directory / "start.ckpt").write_text("2")
    assert read_check(command) == (EPOCH, True)


def test_word_that_is_too_long_for_a_path_is_no_file():
    assert set(file_digests([*COMMAND, f"--config={{{300 * 'x'}}}"], [])) == {"train.py"}


def test_rule_of_files_that_changed_after_the_check_does_not_apply(directory):
    checked = file_digests(COMMAND, [])
    (directory / "train.py").write_text("2")
    write_check(COMMAND, EPOCH, checked)
    assert read_check(COMMAND) == (EPOCH, False)


def test_rule_applies_in_every_task_of_an_array(monkeypatch):
    write_check(COMMAND, EPOCH)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    assert read_check(COMMAND) == (EPOCH, True)


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
