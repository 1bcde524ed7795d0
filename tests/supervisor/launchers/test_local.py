"""The supervisor as a launcher."""

from lightning_green.ledger.run_directory import SUPERVISED_VARIABLE
from lightning_green.supervisor.launchers.local import LocalLauncher


def test_empty_variable_means_no_supervisor():
    assert LocalLauncher.detect({SUPERVISED_VARIABLE: "4711"})
    assert not LocalLauncher.detect({SUPERVISED_VARIABLE: ""})
    assert not LocalLauncher.detect({})


def test_variables_of_the_process_are_read_by_default(monkeypatch):
    assert not LocalLauncher.detect()
    monkeypatch.setenv(SUPERVISED_VARIABLE, "4711")
    assert LocalLauncher.detect()


def test_supervisor_resumes_planned_exits_and_accepts_their_code():
    launcher = LocalLauncher({})
    assert launcher.resumes_planned_exits
    assert launcher.accepts_exit_codes
