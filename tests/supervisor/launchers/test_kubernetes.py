import os
import signal
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.supervisor.child import child_environment
from lightning_green.supervisor.launchers import KubernetesLauncher, choose_launcher
from lightning_green.supervisor.launchers.kubernetes_job import parse_time
from tests.helpers.fake_kubernetes import iso
from tests.helpers.kubernetes_fixtures import certificates, cluster

__all__ = ["certificates", "cluster"]
BEGIN = datetime(2031, 3, 2, 1, 30, tzinfo=timezone.utc)
UNTIL = "2031-03-02T01:30:00Z"


@pytest.fixture(autouse=True)
def _signals():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def pod(cluster):
    """Fill the cluster with a Job, its pod and a waker; return the cluster."""
    cluster.add_pod(cluster.add_job())
    cluster.add_lease()
    return cluster


def launcher(cluster):
    return KubernetesLauncher(cluster.environment, cluster.directory)


def release(cluster, begin=BEGIN):
    messages = []
    return launcher(cluster).release_until(begin, messages.append), messages


def test_release_suspends_the_job_in_one_request(pod):
    version = pod.job()["metadata"]["resourceVersion"]
    found, messages = release(pod)
    assert found.exit_code == 75
    assert pod.patches() == [
        {
            "metadata": {
                "resourceVersion": version,
                "annotations": {
                    "lightning-green/until": UNTIL,
                    "lightning-green/due-at": None,
                    "lightning-green/woken-at": None,
                },
            },
            "spec": {"suspend": True},
        }
    ]
    assert pod.job()["spec"]["suspend"] is True
    (message,) = messages
    assert message.startswith("Job train is suspended, and its pod ends.")
    assert "from 2031-03-02 01:30:00 UTC on" in message


def test_time_that_is_over_becomes_the_present(pod):
    before = datetime.now(timezone.utc).replace(microsecond=0)
    release(pod, datetime(2020, 1, 1, tzinfo=timezone.utc))
    until = parse_time(pod.job()["metadata"]["annotations"]["lightning-green/until"])
    assert before <= until <= datetime.now(timezone.utc)


def test_sigterm_after_the_release_does_not_change_the_exit_code(pod):
    """Kubernetes sends it as soon as the Job is suspended."""
    found, _ = release(pod)
    os.kill(os.getpid(), signal.SIGTERM)
    assert found.end() == 75


@pytest.mark.parametrize("fault", ["change", 409, 500, 503, 429, "hang"])
def test_conflicts_and_temporary_errors_are_tried_again(pod, fault):
    pod.faults = [("PATCH", "jobs", fault)] * 3
    found, _ = release(pod)
    assert found.exit_code == 75
    assert pod.job()["metadata"]["annotations"]["lightning-green/until"] == UNTIL


def test_lost_answer_to_the_suspension_is_no_failure(pod):
    pod.faults = [("PATCH", "jobs", "lost")]
    found, _ = release(pod)
    assert found.exit_code == 75
    assert pod.job()["metadata"]["annotations"]["lightning-green/until"] == UNTIL
    assert len(pod.patches()) == 2  # the second one is a conflict


def test_endless_conflicts_keep_the_pod(pod):
    pod.faults = [("PATCH", "jobs", "change")] * 1000
    found, messages = release(pod)
    assert found is None
    assert "has changed 20 times" in messages[0]
    assert pod.job()["spec"]["suspend"] is False


@pytest.mark.parametrize(
    ("fault", "part"),
    [
        (("GET", "pods", 403), "may not get the pod train-x7k2p (403). Apply the Role"),
        (("GET", "jobs", 403), "may not get the Job train (403). Apply the Role"),
        (("GET", "jobs", 404), "it does not exist (404)"),
        (("GET", "leases", 403), "may not get the Lease lightning-green-waker in the namespace default (403)"),
        (("PATCH", "jobs", 403), "may not patch the Job train (403). Apply the Role"),
        (("PATCH", "jobs", 422), "does not patch the Job train (422)"),
        (("PATCH", "jobs", 401), "does not accept the token"),
    ],
)
def test_refusal_keeps_the_pod_and_its_handler(pod, fault, part):
    pod.faults = [fault]
    before = signal.getsignal(signal.SIGTERM)
    found, messages = launcher(pod), []
    assert found.release_until(BEGIN, messages.append) is None
    assert not found.can_release  # it would be refused again
    (message,) = messages
    assert part in message
    assert message.endswith("The pod keeps its devices during the wait.")
    assert pod.job()["spec"]["suspend"] is False
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"spec": {"suspend": True}}, "Somebody else has suspended the Job train."),
        ({"spec": {"parallelism": 2}}, "has several pods"),
        ({"spec": {"managedBy": "example.org/controller"}}, "is managed by example.org/controller"),
        ({"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "q"}}}, "is in a queue of Kueue"),
        ({"metadata": {"ownerReferences": [{"kind": "JobSet", "controller": True}]}}, "is managed by JobSet"),
        ({"metadata": {"deletionTimestamp": UNTIL}}, "is being deleted"),
        ({"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, "has ended"),
    ],
)
def test_job_that_must_not_be_suspended(cluster, fields, part):
    cluster.add_pod(cluster.add_job(**fields))
    cluster.add_lease()
    found, messages = launcher(cluster), []
    assert found.release_until(BEGIN, messages.append) is None
    assert part in messages[0]
    assert cluster.patches() == []
    assert found.can_release is fields.get("spec", {}).get("suspend", False)


def test_job_of_a_cron_job_may_be_suspended(cluster):
    cluster.add_pod(cluster.add_job(metadata={"ownerReferences": [{"kind": "CronJob", "controller": True}]}))
    cluster.add_lease()
    assert release(cluster)[0] is not None


def test_suspension_by_a_person_during_the_request_is_respected(pod):
    def suspend():
        pod.job()["spec"]["suspend"] = True
        pod.bump(pod.job())

    pod.faults = [("PATCH", "jobs", suspend)]
    found, (message,) = release(pod)
    assert found is None
    assert "Somebody else has suspended" in message
    assert "annotations" not in pod.job()["metadata"]


def test_later_job_of_the_same_name_is_not_suspended(pod):
    pod.add_job()  # deleted and created again, while this pod is still running
    found, (message,) = release(pod)
    assert found is None
    assert "replaced by another one" in message
    assert pod.patches() == []


def test_pod_without_a_job_is_kept(cluster):
    cluster.add_lease()
    cluster.add("/api/v1/namespaces/default/pods/train-x7k2p")
    assert "is not the pod of a Job" in release(cluster)[1][0]


@pytest.mark.parametrize("age", [None, 660.0])
def test_without_a_waker_nothing_is_suspended(cluster, age):
    cluster.add_pod(cluster.add_job())
    if age is not None:
        cluster.add_lease(age)
    found, (message,) = release(cluster)
    assert found is None
    assert "lightning-green kubernetes waker-manifest" in message
    assert cluster.patches() == []


@pytest.mark.parametrize(("scope", "is_released"), [("*", True), ("default", True), ("ops", False)])
def test_waker_in_another_namespace_has_to_cover_this_one(cluster, scope, is_released):
    cluster.add_pod(cluster.add_job())
    cluster.add_lease(namespace="ops", annotations={"lightning-green/namespaces": scope})
    cluster.environment["LIGHTNING_GREEN_WAKER_NAMESPACE"] = "ops"
    assert (release(cluster)[0] is not None) == is_released


def test_eviction_during_a_failed_release_ends_the_pod(pod):
    pod.faults = [("GET", "jobs", lambda: os.kill(os.getpid(), signal.SIGTERM)), ("PATCH", "jobs", 403)]
    found, (message,) = release(pod)
    assert found.exit_code == 143
    assert "Kubernetes ends this pod" in message


# -- the start --------------------------------------------------------------------------------------------------------


def prepared(cluster):
    found, messages = launcher(cluster), []
    found.prepare(messages.append)
    return found, messages


def test_start_with_everything_in_place_is_silent(pod):
    found, messages = prepared(pod)
    assert messages == []
    assert found.can_release
    assert not found.has_restarted
    assert found.shortest_release == timedelta(seconds=60)


def test_second_pod_of_a_job_is_a_restart(pod):
    prepared(pod)
    assert not prepared(pod)[0].has_restarted  # a container that starts again in the same pod
    pod.add_pod(pod.job())
    assert prepared(pod)[0].has_restarted


def test_first_pod_is_recorded_in_spite_of_conflicts(pod):
    pod.faults = [("PATCH", "jobs", "change")] * 2
    prepared(pod)
    assert list(pod.job()["metadata"]["annotations"]) == ["lightning-green/first-pod"]


@pytest.mark.parametrize(
    "fault", [("PATCH", "jobs", 403), ("GET", "leases", 404), ("GET", "leases", 403), ("GET", "pods", 404)]
)
def test_start_reports_what_prevents_a_release(pod, fault):
    pod.job()["metadata"]["creationTimestamp"] = iso(-3600)
    pod.faults = [fault]
    found, (message,) = prepared(pod)
    assert not found.can_release
    assert message.startswith("This pod cannot be released during a planned exit: ")


def test_waker_that_was_created_with_the_job_may_still_be_starting(pod):
    pod.faults = [("GET", "leases", 404)]
    found, (message,) = prepared(pod)
    assert found.can_release
    assert message.startswith("This pod cannot be released during a planned exit so far: No waker has reported")
    assert found.release_until(BEGIN, [].append) is not None


def test_server_that_does_not_answer_at_the_start_may_do_so_later(pod, monkeypatch):
    monkeypatch.setattr("lightning_green.supervisor.launchers.kubernetes.START_SECONDS", 0.1)
    pod.faults = [("GET", "", 500)] * 1000
    found, (message,) = prepared(pod)
    assert found.can_release
    assert "(500)" in message


def test_pod_without_a_service_account_trains(cluster, tmp_path):
    found, messages = KubernetesLauncher(cluster.environment, tmp_path / "nothing"), []
    found.prepare(messages.append)
    assert not found.can_release
    assert "automountServiceAccountToken" in messages[0]


@pytest.mark.parametrize(("has_waker", "kept"), [(True, ""), (False, "Kubernetes pod train-x7k2p")])
def test_devices_count_as_kept_without_a_release(cluster, tmp_path, monkeypatch, has_waker, kept):
    cluster.add_pod(cluster.add_job(metadata={"creationTimestamp": iso(-3600)}))
    if has_waker:
        cluster.add_lease()
    for name, value in {**cluster.environment, "HOSTNAME": "train-x7k2p"}.items():
        monkeypatch.setenv(name, value)
    variables = child_environment(tmp_path, "s/1", False, None, prepared(cluster)[0])
    assert variables["LIGHTNING_GREEN_ALLOCATION"] == kept
    assert variables.get("LIGHTNING_GREEN_RELEASES") == ("Kubernetes" if has_waker else None)


# -- times ------------------------------------------------------------------------------------------------------------


def seconds(text):
    return parse_time(text).timestamp()


@pytest.mark.parametrize(
    ("notes", "expected"),
    [
        ({}, -5),
        ({"due-at": -70, "woken-at": -8}, -70),  # the wait for the waker counts
        ({"due-at": -4000, "woken-at": -3900}, -5),  # the pod has followed another one, after an eviction
        ({"due-at": 900, "woken-at": -8}, -5),
    ],
)
def test_wait_for_the_machine_begins_when_the_job_is_due(cluster, notes, expected):
    annotations = {f"lightning-green/{name}": iso(offset) for name, offset in notes.items()}
    created, due = iso(-5), iso(expected)
    cluster.add_pod(cluster.add_job(metadata={"annotations": annotations}), metadata={"creationTimestamp": created})
    cluster.add_lease()
    found = prepared(cluster)[0]
    assert abs(found.eligible_at() - seconds(due)) <= 1.0


def test_end_is_that_of_the_active_deadline(pod):
    assert launcher(pod).ends_at() is None
    pod.job()["spec"]["activeDeadlineSeconds"] = 3600
    pod.job()["status"]["startTime"] = UNTIL
    assert launcher(pod).ends_at() == seconds(UNTIL) + 3600
    pod.faults = [("GET", "jobs", 403)]
    assert launcher(pod).ends_at() is None
    found = prepared(pod)[0]
    pod.faults = [("GET", "jobs", 403)]
    assert found.ends_at() == seconds(UNTIL) + 3600  # as it was at the start


def test_choice_outside_of_a_pod():
    with pytest.raises(ValueError, match="lightning-green kubernetes job"):
        choose_launcher("kubernetes", {})
