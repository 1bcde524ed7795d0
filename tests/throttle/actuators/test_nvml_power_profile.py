"""Workload power profiles through a fake driver library behind the real nvidia-ml-py."""

import json

import pynvml
import pytest

from lightning_green.throttle import restore_left_over
from lightning_green.throttle.actuators.nvml_power_profile import PROFILES, NvmlPowerProfile
from tests.helpers.fake_nvml import Card, FakeDriver

UPDATE = "nvmlDeviceWorkloadPowerProfileUpdateProfiles_v1"
# Position 33 is in the second word of a mask, and its number differs from its position.
BLACKWELL = {0: (0, [1, 33]), 1: (1, [0]), 7: (7, []), 20: (20, []), 33: (15, [0])}


def install(monkeypatch, requested=(), missing=(), **card):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    cards = [
        Card(uuid, "NVIDIA B200", profiles=dict(BLACKWELL), requested=set(requested), **card)
        for uuid in ("GPU-aa", "GPU-bb")
    ]
    return FakeDriver(cards, missing).install(monkeypatch)


def requested(driver):
    return [card.requested for card in driver.cards]


def test_numbers_are_those_of_nvml():
    names = {name: getattr(pynvml, f"NVML_POWER_PROFILE_{name.upper().replace('-', '_')}") for name in PROFILES}
    assert names == PROFILES
    assert len(PROFILES) == pynvml.NVML_POWER_PROFILE_MAX


@pytest.mark.parametrize("missing", [(), (UPDATE,)])
def test_requests_low_power_profiles_and_keeps_those_of_the_site(monkeypatch, tmp_path, missing):
    driver = install(monkeypatch, requested=[7], missing=missing)
    profile = NvmlPowerProfile()
    profile.bind(tmp_path)
    assert [level.name for level in profile.levels()] == ["llm-training", "max-q", "max-q-1"]
    assert requested(driver) == [{7}, {7}]
    assert profile.set(profile.levels()[1])
    assert requested(driver) == [{1, 7}, {1, 7}]
    (file,) = tmp_path.glob("throttle.*.json")
    (entry,) = json.loads(file.read_text())["entries"].values()
    assert entry["state"] == {"GPU-aa": [7], "GPU-bb": [7]}
    assert profile.set(profile.levels()[2])
    assert requested(driver) == [{7, 33}, {7, 33}]
    assert profile.restore()
    assert requested(driver) == [{7}, {7}]
    assert not file.exists()
    assert driver.open == 0


def test_profile_that_the_site_requests_meanwhile_is_kept(monkeypatch):
    driver = install(monkeypatch)
    profile = NvmlPowerProfile()
    assert profile.levels()[0].name == "no profile"
    profile.set(profile.levels()[1])
    driver.cards[0].requested.add(20)
    profile.restore()
    assert requested(driver) == [{20}, set()]


def test_profile_that_the_site_requests_is_requested_again(monkeypatch):
    driver = install(monkeypatch, requested=[1])
    profile = NvmlPowerProfile(["max-q", "max-q-1"])
    assert [level.name for level in profile.levels()] == ["max-q", "max-q-1"]
    profile.set(profile.levels()[1])
    driver.cards[0].requested.discard(1)
    profile.restore()
    assert requested(driver) == [{1}, {1}]


def test_profiles_can_be_combined(monkeypatch):
    driver = install(monkeypatch)
    profile = NvmlPowerProfile(["MAX_Q+training", "max-q"], gpu_ids=["GPU-bb"])
    assert [level.name for level in profile.levels()] == ["no profile", "max-q+training", "max-q"]
    profile.set(profile.levels()[1])
    assert requested(driver) == [set(), {1, 20}]
    profile.restore()
    assert requested(driver) == [set(), set()]


@pytest.mark.parametrize(
    ("profiles", "site", "reason"),
    [
        (None, [0], "max-q conflicts with max-p, which is already requested"),
        (["max-p+max-q"], [], "max-p conflicts with max-q"),
        (["max-q-2"], [], "the GPU has no profile max-q-2"),
        (["training"], [20], "training is already requested"),
    ],
)
def test_profile_that_cannot_be_requested_is_not_offered(monkeypatch, caplog, profiles, site, reason):
    driver = install(monkeypatch, requested=site)
    profile = NvmlPowerProfile(profiles)
    assert profile.levels() == ()
    assert reason in caplog.records[0].getMessage()
    assert requested(driver) == [set(site)] * 2


def test_profile_has_to_exist_on_all_gpus(monkeypatch):
    driver = install(monkeypatch)
    del driver.cards[1].profiles[33]
    assert [level.name for level in NvmlPowerProfile().levels()] == ["no profile", "max-q"]


@pytest.mark.parametrize(
    ("missing", "without", "reason"),
    [
        ([], "profiles", "NVIDIA B200 has no workload power profiles"),
        (["nvmlDeviceWorkloadPowerProfileGetCurrentProfiles"], None, "driver has no workload power profiles; update"),
        ([], "structures", "update nvidia-ml-py"),
        ([], "root", "run as root"),
    ],
)
def test_reason_is_reported_if_profiles_cannot_be_requested(monkeypatch, missing, without, reason):
    driver = install(monkeypatch, missing=missing)
    for card in driver.cards:
        card.profiles = {} if without == "profiles" else card.profiles
        card.root = without != "root"
    if without == "structures":
        monkeypatch.delattr(pynvml, "c_nvmlWorkloadPowerProfileCurrentProfiles_v1_t")
    profile = NvmlPowerProfile()
    assert profile.levels() == ()
    assert reason in profile.problem
    assert driver.open == 0


def test_permission_is_checked_without_a_change(monkeypatch):
    driver = install(monkeypatch, requested=[1, 33])
    assert len(NvmlPowerProfile(["max-q", "max-q+training"]).levels()) == 2
    assert requested(driver) == [{1, 33}] * 2
    assert UPDATE in [name for name, _ in driver.calls]


def test_slice_of_a_gpu_is_refused(monkeypatch):
    install(monkeypatch, mig=[("MIG-1", 1, 0, 3)])
    profile = NvmlPowerProfile(gpu_ids=["MIG-1"])
    assert profile.levels() == ()
    assert "would slow down its other users" in profile.problem


@pytest.mark.parametrize("profiles", [[], "max-q", ["max-x"], ["max-q+"], [1]])
def test_unknown_profiles_are_refused(profiles):
    with pytest.raises(ValueError, match="`profiles` should"):
        NvmlPowerProfile(profiles)


def left_over(tmp_path, monkeypatch):
    """Return a driver and the journal of a process that has ended with a profile."""
    driver = install(monkeypatch, requested=[7])
    profile = NvmlPowerProfile()
    profile.bind(tmp_path)
    profile.set(profile.levels()[1])
    profile._original = None  # this process does not restore it at its end
    (file,) = tmp_path.glob("throttle.*.json")
    file.write_text(file.read_text().replace('"started": "', '"started": "0'))
    return driver, file


def test_journal_restores_profiles(tmp_path, monkeypatch):
    driver, _ = left_over(tmp_path, monkeypatch)
    assert requested(driver) == [{1, 7}] * 2
    (message,) = restore_left_over(tmp_path)
    assert "its original state is restored" in message
    assert requested(driver) == [{7}] * 2


@pytest.mark.parametrize("state", ["[300]", "[-1]", '["1"]', "7", "[true]"])
def test_state_that_is_not_one_of_profiles_is_refused(tmp_path, monkeypatch, state):
    driver, file = left_over(tmp_path, monkeypatch)
    content = json.loads(file.read_text())
    (entry,) = content["entries"].values()
    entry["state"]["GPU-aa"] = json.loads(state)
    file.write_text(json.dumps(content))
    (message,) = restore_left_over(tmp_path)
    assert "could not be restored" in message
    assert requested(driver) == [{1, 7}] * 2
