import signal
import sys

import pytest
import yaml
from typer.testing import CliRunner

from lightning_green.cli.main import app
from lightning_green.kubernetes.rules import problems
from lightning_green.supervisor.launchers import kubernetes_api
from tests.helpers.fake_kubernetes import iso
from tests.helpers.kubernetes_fixtures import certificates, cluster

__all__ = ["certificates", "cluster"]
JOB = ["kubernetes", "job", "--image", "train:1", "--volume-claim", "runs"]
COMMAND = ["--", "python", "train.py"]


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words], prog_name="lightning-green")


def kinds(result):
    return [one["kind"] for one in yaml.safe_load_all(result.stdout)]


def test_job_is_yaml_that_follows_the_rules():
    result = invoke(*JOB, "--gpus", "1", "--env", "A=b=c", "--active-deadline", "24h", "--user", "1000", *COMMAND)
    assert result.exit_code == 0, result.output
    *_, job = yaml.safe_load_all(result.stdout)
    assert problems(job) == []
    assert job["spec"]["activeDeadlineSeconds"] == 86400
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert {"name": "A", "value": "b=c"} in container["env"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": "1"}}
    assert "&" not in result.stdout  # anchors, which few people read


def test_waker_is_printed_on_request():
    own = ["ServiceAccount", "Role", "RoleBinding", "Job"]
    assert kinds(invoke(*JOB, *COMMAND)) == own
    assert kinds(invoke(*JOB, "--waker", *COMMAND)) == ["ServiceAccount", "Role", "RoleBinding", "CronJob", *own]
    everywhere = kinds(invoke(*JOB, "--waker", "--waker-namespace", "ops", *COMMAND))
    assert "ClusterRoleBinding" in everywhere
    assert kinds(invoke("kubernetes", "waker-manifest", "--image", "train:1"))[-1] == "CronJob"


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (JOB, "training command is missing"),
        (["kubernetes", "job", "--image", "train:1", *COMMAND], "Missing option '--volume-claim'"),
        ([*JOB, "--name", "Train", *COMMAND], "lower-case letters"),
        ([*JOB, "--env", "A", *COMMAND], "should be NAME=VALUE, got 'A'"),
        ([*JOB, "--env", "1=2", *COMMAND], "not a name of an environment variable"),
        ([*JOB, "--grace", "soon", *COMMAND], "`--grace` should be a duration"),
        ([*JOB, "--grace", "1s", *COMMAND], "should be longer than `--stop-timeout`"),
        ([*JOB, "--mount", "data", *COMMAND], "absolute path"),
        ([*JOB, "--memory", "lots", *COMMAND], "should be a quantity"),
        ([*JOB, "--active-deadline", "0s", *COMMAND], "positive integer"),
        (["kubernetes", "waker-manifest", "--image", " "], "image is missing"),
        (["kubernetes", "waker-manifest", "--image", "a", "--namespace", "a b"], "`--namespace` cannot be used"),
        (["kubernetes", "waker", "--namespace", "a", "--all-namespaces"], "either --namespace or"),
        (["kubernetes", "waker", "--interval", "1h"], "between 1s and 5m"),
        (["kubernetes", "waker", "--once"], "this process is not in a Kubernetes pod"),
        (["kubernetes", "waker", "--server", "http://10.0.0.1"], "not an address of this machine"),
    ],
)
def test_wrong_usage_is_one_line(words, part, monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    result = invoke(*words)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert part in line
    assert result.stdout == ""


def test_waker_looks_once(cluster, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(kubernetes_api, "SERVICE_ACCOUNT", cluster.directory)
    job = cluster.add_job(metadata={"annotations": {"lightning-green/until": iso(-5)}})
    job["spec"]["suspend"] = True
    result = invoke("kubernetes", "waker", "--once", "--interval", "30s")
    assert (result.exit_code, cluster.job()["spec"]["suspend"]) == (0, False)
    assert cluster.lease()["spec"]["leaseDurationSeconds"] == 30
    cluster.may_patch_jobs = False
    result = invoke("kubernetes", "waker", "--once")
    assert result.exit_code == 1
    assert "waker-manifest" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_waker_runs_until_a_signal(cluster, monkeypatch):
    for name, value in cluster.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(kubernetes_api, "SERVICE_ACCOUNT", cluster.directory)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    cluster.faults = [("GET", "jobs", 403), ("GET", "jobs", lambda: signal.raise_signal(signal.SIGTERM))]
    try:
        result = invoke("kubernetes", "waker", "--interval", "1s")
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert result.exit_code == 0
    assert len([path for _, path, _ in cluster.requests if path.endswith("/jobs")]) == 2
