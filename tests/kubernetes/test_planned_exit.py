"""Trainings in the pods of a fake cluster: the processes, the requests and the waits are real."""

import re
import signal
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from lightning_green.supervisor.launchers.kubernetes_job import parse_time
from tests.helpers.fake_kubernetes import fake_cluster
from tests.helpers.kubernetes_fixtures import certificates
from tests.helpers.ledgers import read_records
from tests.helpers.processes import Process, run_to_the_end

__all__ = ["certificates"]
HELPERS = Path(__file__).parents[1] / "helpers"
TRAINING = [sys.executable, HELPERS / "slurm_training.py"]
RETURN_SECONDS = 1

pytestmark = pytest.mark.slow


class Pods:
    """The Job controller of a cluster, as far as one Job is concerned, and the pods of that Job as processes."""

    def __init__(self, cluster, folder, **variables):
        self.cluster, self.folder, self.variables, self.number = cluster, folder, variables, 0
        cluster.add_job()

    def green(self, *words):
        return [sys.executable, HELPERS / "green_in_pod.py", self.cluster.directory, *words]

    def wake(self):
        code, printed = run_to_the_end(
            self.green("kubernetes", "waker", "--once", "--interval", "1s"),
            self.folder / "waker",
            **self.cluster.environment,
        )
        assert code == 0, printed

    def pod(self):
        """Start the next pod."""
        assert self.cluster.job()["spec"]["suspend"] is False
        self.number += 1
        name = f"train-{self.number}"
        self.cluster.add_pod(self.cluster.job(), name)
        words = ["run", "--launcher", "kubernetes", "--run-dir", self.folder / "run", "--", *TRAINING]
        variables = {**self.cluster.environment, **self.variables, "LIGHTNING_GREEN_POD": name}
        pod = Process(self.green(*words), self.folder / "pods", **variables)
        self.cluster.suspended = lambda: pod.process.send_signal(signal.SIGTERM)  # as the Job controller does
        return pod

    @property
    def until(self):
        return parse_time(self.cluster.job()["metadata"]["annotations"]["lightning-green/until"])

    def events(self, name):
        return [one for one in read_records(self.folder / "run") if one["event"] == name]

    def exit_once(self):
        """Run a pod until its planned exit, and wait until the waker has started the Job again."""
        with self.pod() as pod:
            assert pod.wait() == 75, pod.printed
            assert "Job train is suspended" in pod.printed
        assert self.cluster.job()["spec"]["suspend"] is True
        planned = datetime.fromisoformat(self.events("paused")[-1]["until"]).timestamp()
        assert 0.0 <= planned - RETURN_SECONDS - self.until.timestamp() < 10.0  # less the return time, once measured
        if time.time() < self.until.timestamp() - 5.0:  # the waker takes a second
            self.wake()
            assert self.cluster.job()["spec"]["suspend"] is True
        time.sleep(max(0.0, self.until.timestamp() - time.time()))
        self.wake()
        return pod.printed


def final(printed):
    (line,) = re.findall(r"^FINAL (\d+ [0-9a-f]{64})$", printed, re.MULTILINE)
    return line


def continued(printed):
    return [int(step) for step in re.findall(r"continued from step (\d+)", printed)]


@pytest.fixture
def pods(tmp_path, certificates, request):
    variables = {"STEPS": "60", "AWAY": "16", "RETURN": str(RETURN_SECONDS), **request.param}
    with fake_cluster(tmp_path / "serviceaccount", certificates) as cluster:
        yield Pods(cluster, tmp_path, **variables)


def plain(folder, **variables):
    code, printed = run_to_the_end(TRAINING, folder / "plain", **{**variables, "STEP_SECONDS": "0"})
    assert code == 0, printed
    return final(printed)


@pytest.mark.parametrize("pods", [{"EXITS": "37"}], indirect=True, ids=[""])
def test_planned_exit_suspends_the_job_and_keeps_the_weights(pods):
    pods.wake()  # a Lease, without which nothing is suspended
    pods.exit_once()
    with pods.pod() as pod:
        assert pod.wait() == 0, pod.printed
    assert continued(pod.printed) == [37]
    assert final(pod.printed) == plain(pods.folder, STEPS="60")


@pytest.mark.nightly
@pytest.mark.parametrize("pods", [{"EXITS": "7,20,55", "STEP_SECONDS": "0.1", "AWAY": "40"}], indirect=True, ids=[""])
def test_exits_an_eviction_and_an_early_start_keep_the_weights(pods):
    pods.wake()
    assert continued(pods.exit_once()) == []
    assert continued(pods.exit_once()) == [7]
    with pods.pod() as pod:
        pod.until(lambda: "step 30" in pod.printed)
        assert pod.kill(signal.SIGTERM) == 143  # as the kubelet does
    (interrupted,) = pods.events("interrupted")
    assert pods.cluster.job()["spec"]["suspend"] is False
    with pods.pod() as pod:
        assert pod.wait() == 75, pod.printed
        assert continued(pod.printed) == [interrupted["global_step"]]
    until = pods.until
    pods.cluster.job()["spec"]["suspend"] = False  # by a person: the supervisor finds out, and suspends it again
    pods.cluster.bump(pods.cluster.job())
    with pods.pod() as pod:
        assert pod.wait() == 75, pod.printed
        assert continued(pod.printed) == []
    assert pods.until == until
    time.sleep(max(0.0, until.timestamp() - time.time()))
    pods.wake()
    with pods.pod() as pod:
        assert pod.wait() == 0, pod.printed
    assert continued(pod.printed) == [55]
    assert final(pod.printed) == plain(pods.folder, STEPS="60")


@pytest.mark.nightly
@pytest.mark.parametrize("pods", [{"EXITS": "37"}], indirect=True, ids=[""])
def test_without_a_waker_the_pod_waits_and_keeps_the_weights(pods):
    pods.cluster.add_lease(age=660.0, interval=1)
    with pods.pod() as pod:
        assert pod.wait() == 0, pod.printed
    assert "The Job of this pod is not suspended: The waker in the namespace default has not reported" in pod.printed
    assert continued(pod.printed) == [37]
    assert final(pod.printed) == plain(pods.folder, STEPS="60")
    assert pods.cluster.patches()[-1]["metadata"]["annotations"].keys() == {"lightning-green/first-pod"}
