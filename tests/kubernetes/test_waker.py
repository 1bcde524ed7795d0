from datetime import timedelta

import pytest

from lightning_green.kubernetes.waker import Waker
from lightning_green.supervisor.launchers.kubernetes_api import Access, KubernetesAPI
from lightning_green.supervisor.launchers.kubernetes_job import parse_time
from tests.helpers.fake_kubernetes import iso
from tests.helpers.kubernetes_fixtures import certificates, cluster

__all__ = ["certificates", "cluster"]


def run_once(cluster, namespace="default", interval=60):
    messages = []
    api = KubernetesAPI(Access.of_pod(cluster.environment, cluster.directory), total=0.3)
    return Waker(api, namespace, timedelta(seconds=interval), messages.append).run_once(), messages


def suspended(cluster, until, name="train", **fields):
    notes = {} if until is None else {"annotations": {"lightning-green/until": until}}
    job = cluster.add_job(name, metadata={**notes, **fields.pop("metadata", {})}, **fields)
    job["spec"]["suspend"] = True
    return job


def test_due_job_is_started_in_one_request(cluster):
    until = iso(-5)
    version = suspended(cluster, until)["metadata"]["resourceVersion"]
    works, messages = run_once(cluster)
    assert works
    (patch,) = cluster.patches()
    woken = patch["metadata"]["annotations"]["lightning-green/woken-at"]
    assert patch == {
        "metadata": {
            "resourceVersion": version,
            "annotations": {
                "lightning-green/until": None,
                "lightning-green/due-at": until,
                "lightning-green/woken-at": woken,
            },
        },
        "spec": {"suspend": False},
    }
    assert iso(-60) < woken <= iso(1)
    assert messages == [f"Job default/train was due at {until} and is started."]


@pytest.mark.parametrize("until", [None, 3600, 2])
def test_other_jobs_are_not_touched(cluster, until):
    """A Job that a person has suspended has no annotation."""
    suspended(cluster, None if until is None else iso(until))
    cluster.add_job("running")
    works, messages = run_once(cluster)
    assert (works, messages, cluster.patches()) == (True, [], [])


def test_job_that_somebody_has_started_loses_the_planned_time(cluster):
    """Otherwise a later suspension by a person would be ended at that time."""
    job = suspended(cluster, iso(3600))
    job["spec"]["suspend"] = False
    run_once(cluster)
    (patch,) = cluster.patches()
    assert patch["metadata"]["annotations"] == {"lightning-green/until": None}
    assert "spec" not in patch
    cluster.job()["spec"]["suspend"] = True
    run_once(cluster)
    assert cluster.job()["spec"]["suspend"] is True


def test_change_by_somebody_else_wins(cluster):
    suspended(cluster, iso(-5))
    cluster.faults = [("PATCH", "jobs", "change")]
    works, messages = run_once(cluster)
    assert (works, messages) == (True, [])
    assert cluster.job()["spec"]["suspend"] is True
    assert cluster.lease() is not None
    run_once(cluster)
    assert cluster.job()["spec"]["suspend"] is False


@pytest.mark.parametrize("fault", [404, 422, 500])
def test_failure_with_one_job_does_not_stop_the_others(cluster, fault):
    for name in ("a", "b"):
        suspended(cluster, iso(-5), name)
    cluster.faults = [("PATCH", "jobs/a", fault)] * 100
    works, (failed, started) = run_once(cluster)
    assert not works
    assert "Job default/a could not be started" in failed
    assert "Job default/b was due" in started
    assert cluster.job("b")["spec"]["suspend"] is False
    assert cluster.lease() is not None


@pytest.mark.parametrize("until", ["tomorrow", "2027-03-02T01:30:00", "", "9999-99-99T00:00:00Z", 5])
def test_damaged_time_is_reported(cluster, until):
    suspended(cluster, until)
    works, (message,) = run_once(cluster)
    assert not works
    assert "kubectl -n default annotate --overwrite job train lightning-green/until=TIME" in message
    assert cluster.patches() == []


def test_job_of_kueue_is_left_to_it(cluster):
    suspended(
        cluster,
        iso(-5),
        metadata={"labels": {"kueue.x-k8s.io/queue-name": "q"}, "annotations": {"lightning-green/until": iso(-5)}},
    )
    _, (message,) = run_once(cluster)
    assert "Kueue" in message
    assert cluster.patches() == []


def test_job_that_has_ended_is_ignored(cluster):
    suspended(cluster, iso(-5), status={"conditions": [{"type": "Failed", "status": "True"}]})
    assert run_once(cluster) == (True, [])
    assert cluster.patches() == []


@pytest.mark.parametrize(("namespace", "started"), [("default", ["a"]), (None, ["a", "b"]), ("other", ["b"])])
def test_namespaces(cluster, namespace, started):
    for name, where in (("a", "default"), ("b", "other")):
        suspended(cluster, iso(-5), name)
        if where == "other":
            job = cluster.objects.pop("/apis/batch/v1/namespaces/default/jobs/b")
            job["metadata"]["namespace"] = "other"
            cluster.objects["/apis/batch/v1/namespaces/other/jobs/b"] = job
    run_once(cluster, namespace)
    running = [path[-1] for path, one in cluster.objects.items() if "jobs" in path and not one["spec"]["suspend"]]
    assert sorted(running) == started
    assert cluster.lease()["metadata"]["annotations"]["lightning-green/namespaces"] == (namespace or "*")


# -- the Lease --------------------------------------------------------------------------------------------------------


def test_lease_is_created_and_renewed(cluster):
    run_once(cluster, interval=30)
    first = dict(cluster.lease()["spec"])
    assert first["leaseDurationSeconds"] == 30
    assert first["renewTime"].endswith("Z")
    run_once(cluster)
    second = cluster.lease()["spec"]
    assert parse_time(second["renewTime"]) > parse_time(first["renewTime"])
    assert [method for method, path, _ in cluster.requests if "leases" in path] == ["GET", "POST", "GET", "PATCH"]


def test_lease_that_another_waker_has_just_created_is_no_failure(cluster):
    cluster.faults = [("GET", "leases", 404)]
    cluster.add_lease()
    assert run_once(cluster) == (True, [])


@pytest.mark.parametrize(
    "fault", [("POST", "selfsubject", 403), ("GET", "jobs", 403), ("PATCH", "jobs", 403), ("GET", "jobs", 500), None]
)
def test_waker_that_cannot_start_jobs_does_not_renew_the_lease(cluster, fault):
    suspended(cluster, iso(-5))
    cluster.may_patch_jobs = fault is not None
    cluster.faults = [fault] * 100 if fault else []
    works, (message,) = run_once(cluster)
    assert not works
    assert message.startswith("The pass of the waker has failed: ")
    assert cluster.lease() is None


def test_waker_without_rights_to_the_lease_still_starts_jobs(cluster):
    suspended(cluster, iso(-5))
    cluster.faults = [("POST", "leases", 403)]
    works, messages = run_once(cluster)
    assert not works
    assert "may not create the Lease" in messages[-1]
    assert cluster.job()["spec"]["suspend"] is False
