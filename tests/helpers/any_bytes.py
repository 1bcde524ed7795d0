"""Hypothesis strategies for the content of damaged, odd and hostile files."""

import json
import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.helpers.any_json import any_json, odd

EXAMPLES = int(os.environ.get("LIGHTNING_GREEN_FUZZ_EXAMPLES", "0"))
"""Number of examples of each file type; 0 for the default of the lane."""

HOSTILE = {
    "empty": b"",
    "binary": bytes(range(256)),
    "nul": b"\0" * 1000,
    "deep": b"[" * 200_000,
    "deep_object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "huge_integer": b'{"seq": ' + b"9" * 6000 + b"}",
    "infinite": b'{"at": 1e400, "seq": 1e400, "version": 1e400, "event": "sample", "schema": 1}',
    "surrogate": rb'{"schema": 1, "run_id": "\ud800", "event": "\ud800", "seq": 1, "reason": "\u001b[2J"}',
    "not_an_object": b"[1, 2]",
    "null": b"null",
}
"""Content that breaks readers, by a name."""


def fuzz(examples):
    """Return the settings of a test that reads this number of examples, or as many as the environment sets."""
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=EXAMPLES or examples, deadline=None, suppress_health_check=checks, database=None)


def damaged(*records, lines=False):
    """Return a strategy for the bytes of a JSON file (or of JSON lines) that once contained these records."""
    return st.one_of(
        st.binary(max_size=200),
        st.sampled_from(sorted(HOSTILE.values())),
        any_json.map(_dump),
        _changed_records(records, lines),
        _changed_records(records, lines).flatmap(_changed_bytes),
    )


def damaged_bytes(content):
    """Return a strategy for the bytes of a binary file that once had this content."""
    return st.one_of(st.binary(max_size=200), _changed_bytes(content))


@st.composite
def _changed_records(draw, records, lines):
    """Replace, remove or add up to three values anywhere in the records."""
    changed = json.loads(json.dumps(records))
    for _ in range(draw(st.integers(1, 3))):
        parent, key = changed, draw(st.sampled_from(range(len(changed))))
        while isinstance(parent[key], (dict, list)) and parent[key] and draw(st.booleans()) | (parent is changed):
            parent = parent[key]
            key = draw(st.sampled_from(sorted(parent) if isinstance(parent, dict) else range(len(parent))))
        if parent is changed:
            changed[key] = draw(any_json)
        elif draw(st.integers(0, 3)) or isinstance(parent, list):
            parent[key] = draw(st.one_of(odd, any_json, st.sampled_from(["", 0, -1, [], {}, [1], {"a": 1}, 2**53])))
        else:
            del parent[key]
            if not parent:
                break
    return b"\n".join(map(_dump, changed)) + b"\n" if lines else _dump(changed[0])


@st.composite
def _changed_bytes(draw, content):
    """Cut the content, or replace some of its bytes."""
    data = bytearray(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)
    for _ in range(draw(st.integers(0, 3))):
        if data:
            data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


def _dump(value):
    return json.dumps(value).encode()
