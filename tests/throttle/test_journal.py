"""The journal of throttled devices, in this process and after a killed one."""

import json

import pytest

from lightning_green.throttle import restore_left_over
from lightning_green.throttle.journal import Journal, JournalEntry
from tests.helpers.powercap import limits, packages
from tests.helpers.throttled_process import kill_throttled_process

KIND = "RAPL power limit"


def end_process(journal):
    """Change a journal as if the process that wrote it had ended."""
    content = json.loads(journal.path.read_text())
    journal.path.write_text(json.dumps(content | {"started": "another process with this id"}))


def test_file_exists_only_while_a_device_is_throttled(tmp_path):
    journal = Journal(tmp_path)
    for zone in ("0", "1"):
        journal.save(KIND, {"zone": zone}, {"watts": 200})
    journal.forget(KIND, {"zone": "0"})
    assert journal.path.exists()
    journal.forget(KIND, {"zone": "1"})
    assert list(tmp_path.iterdir()) == []
    journal.forget(KIND, {"zone": "1"})


def test_first_state_of_a_device_is_kept(tmp_path):
    Journal(tmp_path).save(KIND, {"a": 1, "b": 2}, {"watts": 200})
    journal = Journal(tmp_path)
    journal.save(KIND, {"b": 2, "a": 1}, {"watts": 100})
    end_process(journal)
    assert journal.abandoned() == [JournalEntry(KIND, {"a": 1, "b": 2}, {"watts": 200})]


def test_running_process_has_abandoned_nothing(tmp_path):
    journal = Journal(tmp_path)
    assert journal.abandoned() == []
    journal.save(KIND, {}, {"watts": 200})
    assert Journal(tmp_path).abandoned() == []
    end_process(journal)
    assert len(Journal(tmp_path).abandoned()) == 1


def test_journal_that_cannot_be_written_raises_before_the_device_is_changed(tmp_path):
    with pytest.raises(OSError, match="missing"):
        Journal(tmp_path / "missing").save(KIND, {}, {"watts": 200})


def test_entry_of_another_version_is_restored_if_it_is_complete(tmp_path):
    journal = Journal(tmp_path)
    journal.save(KIND, {}, {"watts": 200})
    end_process(journal)
    content = json.loads(journal.path.read_text())
    (entry,) = content["entries"].values()
    content["entries"] = {"a": entry | {"of_tomorrow": 1}, "b": {"kind": KIND}, "c": 3}
    journal.path.write_text(json.dumps(content))
    assert journal.abandoned() == [JournalEntry(KIND, {}, {"watts": 200})]


def test_entries_of_an_ended_process_without_a_start_time_are_abandoned(tmp_path):
    journal = Journal(tmp_path)
    journal.save(KIND, {}, {"watts": 200})
    content = json.loads(journal.path.read_text())
    del content["started"]
    journal.path.write_text(json.dumps(content | {"pid": 2**22 + 1}))  # more than the largest process id of Linux
    assert len(Journal(tmp_path).abandoned()) == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"entries": []}', '{"entries": {"a": {}}, "pid": 1}'])
def test_damaged_file_has_no_entries_and_is_replaced(tmp_path, content):
    journal = Journal(tmp_path)
    journal.path.write_text(content)
    assert journal.abandoned() == []
    journal.save(KIND, {}, {"watts": 200})
    end_process(journal)
    assert journal.abandoned() == [JournalEntry(KIND, {}, {"watts": 200})]


def test_nodes_with_the_same_host_name_have_separate_journals(tmp_path):
    journals = [Journal(tmp_path), Journal(tmp_path, "0"), Journal(tmp_path, "1")]
    for journal in journals:
        journal.save(KIND, {}, {"watts": 200})
    assert len(list(tmp_path.iterdir())) == 3
    assert sorted(one.path for one in journals[1].siblings()) == sorted(journals[n].path for n in (0, 2))


def test_reboot_discards_journal(tmp_path):
    folder = packages(tmp_path / "powercap")
    file = kill_throttled_process(folder, tmp_path)
    file.write_text(json.dumps({**json.loads(file.read_text()), "boot": "another"}))
    assert restore_left_over(tmp_path) == []
    assert limits(folder) == [100.0, 100.0]


def test_journal_of_another_machine_with_same_name_is_kept(tmp_path):
    folder = packages(tmp_path / "powercap")
    file = kill_throttled_process(folder, tmp_path)
    other = tmp_path / file.name.replace(".json", ".1.json")
    file.rename(other)
    other.write_text(json.dumps({**json.loads(other.read_text()), "boot": "another"}))
    assert restore_left_over(tmp_path, "0") == []
    assert other.exists()
