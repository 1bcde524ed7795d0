"""Files that are rewritten while a run resumes."""

import threading
import time

import pytest

from lightning_green.ledger.run_directory import RESUME_VARIABLE
from lightning_green.run.rewritten_files import while_rewritten


def test_incomplete_file_is_read_again_under_a_supervisor(tmp_path, monkeypatch):
    monkeypatch.setenv(RESUME_VARIABLE, "1")
    path = tmp_path / "value"
    path.write_text("")

    def complete():
        time.sleep(0.5)
        path.write_text("3.5")

    writer = threading.Thread(target=complete)
    writer.start()
    assert while_rewritten(lambda: float(path.read_text())) == 3.5
    writer.join()


def test_error_is_raised_at_once_without_one(tmp_path, monkeypatch):
    monkeypatch.delenv(RESUME_VARIABLE, raising=False)
    calls = []
    with pytest.raises(ValueError, match="could not convert"):
        while_rewritten(lambda: calls.append(1) or float(""))
    assert calls == [1]
