"""Measured profiles on disk."""

import pytest
from torch import nn

from lightning_green.throttle.measurement import OperatingPoint
from lightning_green.throttle.profile import ThrottleProfile
from lightning_green.throttle.profile_cache import ProfileCache, describe_model

NAMES = ["200 W", "150 W"]


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))


def profile(names=("full", *NAMES)):
    return ThrottleProfile(list(names), run_seconds=3600.0)


def measured():
    found = profile()
    state = {"names": found.names, "points": []}
    for name, watts, seconds in (("full", 250.0, 0.1), ("200 W", 200.0, 0.11), ("150 W", 150.0, 0.13)):
        point = {"name": name, "seconds": seconds, "seconds_error": 0.0, "watts": watts, "watts_error": 0.0}
        state["points"].append(point)
    assert found.load(state)
    return found


def test_saved_profile_is_loaded_by_the_next_run():
    found, saved = profile(), measured()
    ProfileCache(["GPU"], "model", NAMES).save(saved)
    assert ProfileCache(["GPU"], "model", NAMES).load(found)
    assert found.points == saved.points
    assert type(found.points["full"]) is OperatingPoint


def test_profile_that_was_never_saved_is_not_loaded():
    found = profile()
    assert not ProfileCache(["GPU"], "model", NAMES).load(found)
    assert found.points == {}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"names": []}', "3"])
def test_damaged_file_means_that_the_levels_are_measured(content):
    cache, found = ProfileCache(["GPU"], "model", NAMES), profile()
    cache.save(measured())
    cache.path.write_text(content)
    assert not cache.load(found)
    assert found.measuring == "full"


def test_devices_model_and_levels_have_separate_files():
    paths = {
        ProfileCache(*key).path
        for key in ((["A"], "m", NAMES), (["A", "A"], "m", NAMES), (["A"], "n", NAMES), (["A"], "m", NAMES[:1]))
    }
    assert len(paths) == 4
    assert ProfileCache(["A", "B"], "m", NAMES).path == ProfileCache(["B", "A"], "m", NAMES[::-1]).path


def test_directory_that_cannot_be_written_warns(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file")
    ProfileCache(["GPU"], "model", NAMES).save(measured())
    assert "The measured throttle levels could not be saved" in caplog.text


def test_model_is_described_by_its_class_and_the_shapes_of_its_parameters():
    first, second = nn.Linear(2, 3), nn.Linear(2, 3)
    assert describe_model(first) == describe_model(second)  # regardless of the weights
    others = [nn.Linear(3, 2), nn.Linear(2, 3, bias=False), nn.Sequential(nn.Linear(2, 3))]
    assert describe_model(first) not in [describe_model(other) for other in others]
    assert describe_model(first).startswith("Linear ")
