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


SET = "sh -c 'echo $1 > $0' {gpu_id} {power_limit_w}"


def override(zeusd, folder, *commands, **more):
    """Let zeusd run commands in place of the driver, as a user without root."""
    zeusd["root"] = False
    zeusd["overrides"]["set_power_limit"] = {"commands": list(commands), "folder": folder, **more}


def test_command_of_the_site_sets_whole_watts(zeusd, tmp_path):
    override(zeusd, tmp_path, SET)
    zeusd["limits"]["2"] = 215_500
    cap = ZeusdPowerLimit([151.7], gpu_ids=[2])
    assert [level.name for level in cap.levels()] == ["215.5 W", "151 W"]
    assert cap.set(cap.levels()[1])
    assert zeusd["limits"] == {"0": 300_000, "2": 151_000}
    assert cap.restore()
    assert zeusd["limits"] == {"0": 300_000, "2": 215_000}  # the command accepts whole watts only


def test_failed_command_reports_its_output(zeusd, tmp_path):
    override(zeusd, tmp_path, "echo cannot write the limit", error_pattern="(?i)cannot")
    cap = ZeusdPowerLimit(gpu_ids=[0])
    assert cap.levels() == ()
    assert "GPU 0: Override command failed: command 'echo cannot write the limit' succeeded but" in cap.problem


def test_success_without_an_effect_is_a_failure(zeusd, tmp_path):
    cap = ZeusdPowerLimit([200], gpu_ids=[0])
    level = cap.levels()[1]
    override(zeusd, tmp_path, "true")
    assert not cap.set(level)
    assert zeusd["limits"] == {"0": 300_000, "2": 250_000}
    zeusd["limits"]["0"] = 280_000
    cap = ZeusdPowerLimit([200], gpu_ids=[0])
    assert not cap.set(cap.levels()[1])
    assert "the power limit of GPU 0 is 280 W instead of 200 W" in cap.problem


def test_every_gpu_is_restored_although_one_fails(zeusd, tmp_path):
    cap = ZeusdPowerLimit([200], gpu_ids=[0, 2])
    assert cap.set(cap.levels()[1])
    override(zeusd, tmp_path, "sh -c 'test $0 = 0 && echo $1 > $0' {gpu_id} {power_limit_w}")
    assert not cap.restore()
    assert zeusd["limits"] == {"0": 300_000, "2": 200_000}
    override(zeusd, tmp_path, SET)
    assert cap.restore()
    assert zeusd["limits"] == {"0": 300_000, "2": 250_000}


def test_command_that_changes_the_gpus_of_others_is_not_used(zeusd, tmp_path, caplog):
    zeusd["limits"]["2"] = 300_000
    override(zeusd, tmp_path, "sh -c 'echo $0 > 0; echo $0 > 2' {power_limit_w}")
    cap = ZeusdPowerLimit([200, 150], gpu_ids=[0])
    cap.bind(tmp_path)
    assert not cap.set(cap.levels()[1])
    assert "also changes GPU 2 (originally 300 W), which the job does not use" in caplog.records[0].getMessage()
    assert zeusd["limits"] == {"0": 300_000, "2": 300_000}
    requests = len(zeusd["seen"])
    assert not cap.set(cap.levels()[2])
    assert [route for method, route, _ in zeusd["seen"][requests:] if method == "POST"] == []
    assert list(tmp_path.glob("throttle.*.json")) == []


def test_command_that_changes_other_gpus_already_at_the_check_is_reported(zeusd, tmp_path):
    override(zeusd, tmp_path, "sh -c 'echo $0 > 0; echo $0 > 2' {power_limit_w}")
    cap = ZeusdPowerLimit([200], gpu_ids=[0])
    assert cap.levels() == ()
    assert "also changes GPU 2 (originally 250 W), which the job does not use" in cap.problem


def test_change_by_another_job_at_the_same_time_is_accepted(zeusd, tmp_path):
    # Another job sets the same limit on its own GPU while the command runs.
    override(zeusd, tmp_path, SET, "sh -c 'test $0 = 200 && echo $0 > 2; true' {power_limit_w}")
    cap = ZeusdPowerLimit([200], gpu_ids=[0])
    assert cap.set(cap.levels()[1])
    assert zeusd["limits"] == {"0": 200_000, "2": 200_000}
    assert cap.restore()
    assert zeusd["limits"] == {"0": 300_000, "2": 200_000}


def test_limits_have_to_be_readable(zeusd):
    zeusd["groups"] = ["gpu-control"]
    cap = ZeusdPowerLimit(gpu_ids=[0])
    assert cap.levels() == ()
    assert "without `gpu-read`; start it with `--enable gpu-read,gpu-control`" in cap.problem
