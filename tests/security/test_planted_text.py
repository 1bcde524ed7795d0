"""Text in a run directory that would control the terminal."""

import json
import socket
import unicodedata
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.ledger.event_reader import event_from_json
from lightning_green.run.run import shorten
from lightning_green.utilities.text import printable

EVIL = "\x1b]0;title\x07\x1b[2K\r\u202eevil\u2066\x9b1m\x00"


def clean(text):
    return all(character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs") for character in text)


@given(st.text())
def test_no_control_character_remains(text):
    assert clean(printable(text))
    assert len(printable(text)) == len(text)


def test_ordinary_text_is_unchanged():
    for text in ("a b\n\tc", "Zürich – 300 gCO₂e", "日本", "a🙂b", ""):
        assert printable(text) == text


@pytest.mark.parametrize("state", ["paused", "failed", "interrupted"])
def test_status_of_a_planted_run_controls_no_terminal(tmp_path, state):
    now = datetime.now(timezone.utc)
    event = {
        "v": 2, "mono_s": 1.0, "node": EVIL, "pid": 1, "attempt": 1, "seq": 1, "time_utc": now.isoformat(),
        "event": state, "reason": EVIL, "until": (now + timedelta(hours=1)).isoformat(), "state": EVIL, "phase": EVIL,
    }  # fmt: skip
    (tmp_path / f"ledger.{socket.gethostname()}.jsonl").write_text(json.dumps(event) + "\n")
    invocation = {"script": EVIL, "arguments": [EVIL], "variables": {EVIL: EVIL}, "directory": EVIL, "simulated": False}
    (tmp_path / "run.json").write_text(json.dumps({"schema": 1, "run_id": EVIL, "invocation": invocation}))
    result = CliRunner().invoke(app, ["status", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert "evil" in result.stdout
    assert clean(result.output)


def test_reason_of_an_event_is_clean_for_every_reader():
    event = event_from_json({"event": "warning", "time_utc": "2024-05-01T00:00:00+00:00", "reason": EVIL})
    assert clean(event.reason)
    assert "evil" in event.reason


def test_recorded_values_in_a_message_are_clean():
    assert clean(shorten([f"lr: {EVIL} then, 0.1 now"] * 7))
