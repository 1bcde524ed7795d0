"""Settings as plain values, and loggers that fail."""

from datetime import timedelta

import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.run.logger_records import log_settings, log_tables, log_totals, plain
from tests.run.test_loggers import trainer_with


def test_secrets_are_redacted_and_objects_are_named():
    found = plain({"url": "https://me:hunter2@host/x", "grid": ConstantSignal(3.0), "levels": ("a", 1), "none": None})
    assert "hunter2" not in str(found)
    assert found["url"].startswith("https://me:<secret")
    assert (found["grid"], found["levels"], found["none"]) == ("ConstantSignal", ["a", 1], None)
    assert plain(timedelta(hours=36)) == "1 day, 12:00:00"


@pytest.mark.parametrize("record", [lambda trainer: log_settings(trainer, {}, False), lambda t: log_totals(t, {})])
def test_logger_that_fails_does_not_stop_the_training(tmp_path, caplog, record):
    (tmp_path / "file").write_text("")
    record(trainer_with(CSVLogger(tmp_path / "file")))
    assert "A logger raised" in caplog.text


def test_tables_are_not_made_without_wandb(tmp_path):
    log_tables(trainer_with(CSVLogger(tmp_path)), lambda: pytest.fail("made"))


def test_no_secret_reaches_a_logger():
    spec = {"url": "https://h/v1?key=SECRETVALUE", "headers": {"a": "SECRETVALUE"}, "my_token": "SECRETVALUE"}
    found = plain({"grid": spec, "text": "see https://h/x#SECRETVALUE and more", "zone": "DE"})
    assert "SECRETVALUE" not in str(found)
    assert found["grid"]["url"] == "https://h/v1?<hidden>"
    assert found["zone"] == "DE"
