"""The cache of answers, shared by the processes of a machine."""

import json
import os
from datetime import datetime, timedelta, timezone

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_green.grid.live.cache import Cache
from lightning_green.utilities.http.errors import ServiceError
from tests.helpers.any_json import any_json
from tests.helpers.live_signals import NOW


def test_unwritable_cache_is_reported_once_and_kept_in_memory(grid, build, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    signal = build("charts")
    signal.fetcher.cache = Cache(tmp_path / "file" / "cache")
    signal.refresh(NOW)
    signal.refresh(NOW + timedelta(hours=1))
    assert signal.intensity(NOW) is not None
    assert len([message for message in signal.pop_messages() if "cannot be used" in message]) == 1
    before = grid.count("charts")
    signal.refresh(NOW + timedelta(hours=1, seconds=1))
    assert grid.count("charts") == before, "the answer in memory was not used"


def test_cache_is_private_and_ignores_a_truncated_file(grid, build):
    signal = build("em")
    signal.refresh(NOW)
    assert os.stat(signal.fetcher.cache.folder).st_mode & 0o077 == 0
    for path in signal.fetcher.cache.folder.glob("*.json"):
        path.write_bytes(path.read_bytes()[:100])
    again = build("em")
    again.load_cache(NOW)
    assert again.intensity(NOW) is None
    assert again.refresh(NOW) == []
    assert again.intensity(NOW) is not None


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(content=st.one_of(st.binary(max_size=200), any_json.map(lambda body: json.dumps(body).encode())))
def test_cache_file_of_any_content_is_an_empty_or_valid_entry(content, tmp_path_factory):
    cache = Cache(tmp_path_factory.mktemp("cache"))
    (cache.folder / "k.json").write_bytes(content)
    entry = cache.read("k")
    entry.is_due(NOW.timestamp(), 86400.0)
    assert entry.body is None
    entry = {"version": 1, "body": [], "fetched_at": 1.0, "not_before": 2.0, "error": "", "failures": 0}
    for name in entry:
        for value in (None, "x", [], float("nan"), float("inf"), -1, 10**400, {}):
            (cache.folder / "k.json").write_text(json.dumps({**entry, name: value}))
            found = cache.read("k")
            assert found.is_due(NOW.timestamp(), 86400.0) in (True, False)
            found.failed(ServiceError("x"), NOW.timestamp())
            if found.fetched_at is not None:
                datetime.fromtimestamp(found.fetched_at, timezone.utc)
