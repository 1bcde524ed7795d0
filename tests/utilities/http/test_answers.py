"""Statuses, waits and contents of answers, from real servers."""

import gzip
import json
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_green.utilities.http.answers import http_date, read_json, retry_after, unpacker
from lightning_green.utilities.http.errors import NotAllowedError, RefusedError, UnreadableError
from lightning_green.utilities.http.transport import Transport
from tests.helpers.fake_grid import TOKEN
from tests.helpers.live_signals import FAST

HINT = "the token is old"
BLOCKED = "127.0.0.1 refuses the request (403): the service may block the address of this machine"
PLAN = "127.0.0.1 refuses the request (403): the plan of the credential does not include it"


@pytest.mark.parametrize(
    ("fault", "credential", "hint", "error", "message"),
    [
        ("401_html", True, HINT, RefusedError, f"127.0.0.1 does not accept the credential (401): {HINT}"),
        ("401_html", True, "", RefusedError, "127.0.0.1 does not accept the credential (401)"),
        ("401_html", False, "", RefusedError, "127.0.0.1 requires a credential (401)"),
        ("401_html", False, "X should be set", RefusedError, "127.0.0.1 requires a credential (401): X should be set"),
        ("403", True, HINT, NotAllowedError, f"{PLAN}, or {HINT}"),
        ("403", True, "", NotAllowedError, PLAN),
        ("403", False, "", NotAllowedError, BLOCKED),
        ("403", False, "X should be set", NotAllowedError, f"{BLOCKED}, or X should be set"),
    ],
)
def test_refusal_names_the_likely_reason(grid, fault, credential, hint, error, message):
    grid.faults = {None: fault}
    transport = Transport(FAST)
    headers = {"auth-token": TOKEN} if credential else {}
    # A validator is a header as well, but no credential.
    with pytest.raises(error) as caught:
        transport.get(grid.url("em") + "/v3/x", headers=headers, validators={"etag": '"1"'}, hint=hint)
    transport.close()
    assert str(caught.value) == message
    assert len(grid.requests) == 1


def test_login_that_is_refused_counts_as_a_credential(grid):
    transport = Transport(FAST)
    with pytest.raises(RefusedError, match=r"does not accept the credential \(401\): a typo"):
        transport.get(grid.url("watttime") + "/login", auth=("alice", "wrong"), hint="a typo")
    transport.close()


def test_gzip_is_unpacked_up_to_the_limit():
    data = gzip.compress(b"a" * 1_000_000)
    unpack = unpacker("gzip", "host")
    assert unpack(data, 10) == b"a" * 10
    assert unpacker("", "host")(b"plain", 3) == b"plain"  # the caller checks the size
    with pytest.raises(UnreadableError, match="damaged gzip"):
        unpacker("x-gzip", "host")(b"not gzip at all", 10)
    with pytest.raises(UnreadableError, match="an encoding that was not requested"):
        unpacker("br", "host")


@pytest.mark.parametrize("levels", [50, 51, 100_000])
def test_json_is_nested_at_most_fifty_levels(levels):
    data = b"[" * levels + b"]" * levels
    if levels == 50:
        assert read_json(data) == json.loads(data)
    else:
        with pytest.raises(UnreadableError, match="nested too deeply"):
            read_json(data)


def test_http_date_is_aware_or_none():
    expected = datetime(2026, 1, 1, 0, 2, tzinfo=timezone.utc)
    assert http_date("Thu, 01 Jan 2026 00:02:00 GMT") == expected
    assert http_date("Thu, 01 Jan 2026 00:02:00 -0000") == expected
    assert http_date("noon") is None
    assert http_date(None) is None


@settings(max_examples=300, deadline=None)
@given(raw=st.text())
def test_retry_after_of_any_text_is_at_most_a_day(raw):
    wait = retry_after(raw, datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert wait is None or timedelta(0) <= wait <= timedelta(days=1)


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("999999999999999999999", 86400),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120),
        ("Wed, 31 Dec 2025 00:00:00 GMT", 0),
        ("-5", None),
        ("soon", None),
        ("", None),
        ("٣", None),
    ],
)
def test_retry_after_is_parsed(raw, seconds):
    wait = retry_after(raw, datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert wait == (None if seconds is None else timedelta(seconds=seconds))
