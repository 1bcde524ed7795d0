"""The power limit through zeusd, with a local server on a Unix socket."""

from lightning_green.throttle.actuators.zeusd_power_limit import ZeusdPowerLimit
from tests.helpers.fake_nvml import Card, FakeDriver


def test_sets_and_restores_limit(zeusd, tmp_path):
    cap = ZeusdPowerLimit(gpu_ids=[0, 2])
    cap.bind(tmp_path)
    assert [level.value for level in cap.levels()] == [250.0, 225.0, 200.0, 175.0, 150.0, 125.0]
    assert cap.set(cap.levels()[2])
    assert zeusd["limits"] == {"0": 200_000, "2": 200_000}
    cap.restore()
    assert zeusd["limits"] == {"0": 300_000, "2": 250_000}


def test_finds_gpus_of_job(zeusd, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-cc")
    FakeDriver([Card("GPU-aa"), Card("GPU-bb"), Card("GPU-cc")]).install(monkeypatch)
    cap = ZeusdPowerLimit([120])
    cap.set(cap.levels()[1])
    assert zeusd["limits"] == {"0": 300_000, "2": 120_000}
    cap.restore()


def test_gpus_of_the_next_fit_have_their_own_limits(zeusd, monkeypatch):
    FakeDriver([Card("GPU-aa"), Card("GPU-bb"), Card("GPU-cc")]).install(monkeypatch)
    cap = ZeusdPowerLimit()
    for gpu, limit in (("GPU-aa", 300.0), ("GPU-cc", 250.0)):
        cap.prepare([gpu], ())
        assert cap.levels()[0].value == limit


def test_refusal_and_missing_daemon_report_remedy(zeusd, monkeypatch):
    zeusd["token"] = "secret-token"
    cap = ZeusdPowerLimit(gpu_ids=[0])
    assert cap.levels() == ()
    assert "ZEUSD_TOKEN" in cap.problem
    monkeypatch.setenv("ZEUSD_TOKEN", "secret-token")
    assert len(ZeusdPowerLimit(gpu_ids=[0]).levels()) > 1
    zeusd["groups"] = ["gpu-read"]
    off = ZeusdPowerLimit(gpu_ids=[0])
    assert off.levels() == ()
    assert "gpu-control" in off.problem
    gone = ZeusdPowerLimit(gpu_ids=[0], socket="/nowhere/zeusd.sock")
    assert gone.levels() == ()
    assert "ZEUSD_SOCK_PATH" in gone.problem
