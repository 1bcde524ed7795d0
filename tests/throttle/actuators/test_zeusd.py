import pytest

from lightning_green.throttle.actuators import zeusd as module
from lightning_green.throttle.actuators.zeusd import DEFAULT_SOCKET, Zeusd, zeusd_gpus
from lightning_green.throttle.errors import ThrottleError
from tests.helpers.fake_nvml import Card, FakeDriver


def test_socket_is_given_or_of_the_environment_or_the_default(zeusd, monkeypatch):
    assert Zeusd("/else.sock").path == "/else.sock"
    assert Zeusd().path.endswith("z.sock")
    monkeypatch.delenv("ZEUSD_SOCK_PATH")
    assert Zeusd().path == DEFAULT_SOCKET


def test_request_has_query_and_token(zeusd, monkeypatch):
    zeusd["token"] = "secret"
    monkeypatch.setenv("ZEUSD_TOKEN", " secret\n")
    answer = Zeusd().call("GET", "/gpu/get_power_limit", {"gpu_ids": "0,2"})
    assert answer == {"0": {"power_limit_mw": 300_000}, "2": {"power_limit_mw": 250_000}}
    assert zeusd["seen"] == [("GET", "/gpu/get_power_limit", {"gpu_ids": "0,2"})]


def test_errors_say_what_to_do(zeusd):
    with pytest.raises(ThrottleError, match="responded to /nothing with status 404"):
        Zeusd().call("GET", "/nothing")
    with pytest.raises(ThrottleError, match=r"does not respond at /nowhere .*; start it or set ZEUSD_SOCK_PATH"):
        Zeusd("/nowhere").check("gpu-control")
    zeusd["token"] = "secret"
    with pytest.raises(ThrottleError, match=r"refused the request \(403\); set ZEUSD_TOKEN"):
        Zeusd().call("GET", "/gpu/get_power_limit", {"gpu_ids": "0"})


def test_daemon_without_control_is_refused(zeusd):
    Zeusd().check("gpu-control", "gpu-read")
    zeusd["groups"] = ["gpu-read"]
    with pytest.raises(ThrottleError, match="without `gpu-control`; start it with `--enable gpu-read,gpu-control`"):
        Zeusd().check("gpu-control", "gpu-read")


def test_indices_are_physical_ones(monkeypatch):
    FakeDriver([Card("GPU-aa"), Card("GPU-bb"), Card("GPU-cc")]).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-aa")
    assert sorted(zeusd_gpus(None)) == [0, 2]
    assert zeusd_gpus(None, ["GPU-bb"]) == [1]
    assert zeusd_gpus([7]) == [7]


def test_without_a_driver_the_indices_have_to_be_given(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with pytest.raises(ThrottleError, match=r"cannot be found .*; set `gpu_ids`"):
        zeusd_gpus(None)


def test_slice_of_a_gpu_is_refused(monkeypatch):
    FakeDriver([Card("GPU-aa", mig=[("MIG-1", 1, 0, 3)])]).install(monkeypatch)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-1")
    with pytest.raises(ThrottleError):
        zeusd_gpus(None)


def test_command_that_takes_too_long_is_reported(zeusd, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_GPU_TIMEOUT_SECONDS", 0.2)
    zeusd["overrides"]["set_power_limit"] = {"commands": ["sleep 2"], "folder": tmp_path}
    query = {"gpu_ids": "0", "power_limit_mw": 200_000, "block": "true"}
    with pytest.raises(
        ThrottleError, match=r"did not complete /gpu/set_power_limit within 0\.2 s; .* still be running"
    ):
        Zeusd().call("POST", "/gpu/set_power_limit", query)


def test_missing_permission_of_the_daemon_is_not_that_of_the_token(zeusd):
    zeusd["root"] = False
    query = {"gpu_ids": "0", "power_limit_mw": 200_000, "block": "true"}
    with pytest.raises(ThrottleError, match=r"lacks the permission .*GPU 0: NVML error.*--gpu-command-overrides"):
        Zeusd().call("POST", "/gpu/set_power_limit", query)
