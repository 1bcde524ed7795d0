"""The contract of a launcher."""

from datetime import datetime, timezone

import pytest

from lightning_green.supervisor.launchers.launcher import Launcher, Release


class Cron(Launcher):
    name = "cron"

    @classmethod
    def detect(cls, environment=None):
        return True


def test_launcher_has_to_detect_itself():
    with pytest.raises(TypeError, match="detect"):
        type("Silent", (Launcher,), {"name": "silent"})()


def test_launcher_neither_resumes_pauses_nor_has_restarted_the_job_by_default():
    launcher = Cron({})
    assert not launcher.resumes_planned_exits
    assert not launcher.has_restarted


def test_exit_codes_are_accepted_by_default():
    assert Cron({}).accepts_exit_codes


def test_environment_is_that_of_the_process_by_default(monkeypatch):
    monkeypatch.setenv("CRON_JOB", "7")
    assert Cron().environment["CRON_JOB"] == "7"
    assert Cron({"CRON_JOB": "8"}).environment == {"CRON_JOB": "8"}


def test_machine_is_kept_by_default():
    launcher, messages = Cron({}), []
    assert not launcher.can_release
    assert launcher.release_until(datetime.now(timezone.utc), messages.append) is None
    assert launcher.eligible_at() is launcher.ends_at() is None
    launcher.prepare(messages.append)
    assert messages == []


def test_release_ends_with_its_exit_code_or_waits_for_its_end():
    assert Release("job 7", 75).end() == 75
    assert Release("job 7").end(0.01) == 75
