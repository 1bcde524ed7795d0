"""The waker: starts suspended Jobs again when they are due."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

from lightning_green.supervisor.launchers.kubernetes_api import CONFLICT, KubernetesAPI, KubernetesError, checked
from lightning_green.supervisor.launchers.kubernetes_job import (
    ALL,
    DUE,
    LEASE,
    SCOPE,
    UNTIL,
    WOKEN,
    KubernetesJob,
    WakerLease,
    iso,
    may_patch_jobs,
    parse_time,
)


class Waker:
    """Starts the Jobs that a supervisor has suspended, when they are due. It changes no other Jobs.

    Only a supervisor sets the annotation ``lightning-green/until``, in the same request that suspends its Job. A Job
    that somebody else has suspended does not have it. The annotation is removed from Jobs that run, so that a later
    suspension by somebody else is not mistaken for one of a supervisor.

    Several wakers may run at the same time: each change applies to the version of the Job that was read.

    Args:
        api: The API server.
        namespace: Namespace of the Jobs; None for all namespaces.
        interval: Time between two passes, which is recorded in the Lease.
        print_line: Receives messages, one line each.
        own_namespace: Namespace of the Lease; None for that of ``api``.

    """

    def __init__(
        self,
        api: KubernetesAPI,
        namespace: str | None,
        interval: timedelta,
        print_line: Callable[[str], None],
        own_namespace: str | None = None,
    ) -> None:
        self._api, self._namespace, self._interval, self._print_line = api, namespace, interval, print_line
        self._own = own_namespace or api.access.namespace

    def run_once(self) -> bool:
        """Start the Jobs that are due, and report in the Lease; return whether everything was possible.

        The Lease is not renewed if the waker may not start Jobs: then no supervisor suspends one.
        """
        try:
            self._check_permission()
            treated = [self._treat(job) for job in self._jobs()]
            self._report()
        except KubernetesError as error:
            self._print_line(f"The pass of the waker has failed: {error}. {error.remedy}".strip())
            return False
        return all(treated)

    def _jobs(self) -> Iterator[KubernetesJob]:
        """Yield the Jobs with the annotation; it is no label, so that the server lists all Jobs."""
        path = "/apis/batch/v1" + ("" if self._namespace is None else f"/namespaces/{checked(self._namespace)}")
        found = self._api.items(f"{path}/jobs", f"list the Jobs of {self._namespace or 'all namespaces'}")
        return (job for one in found if UNTIL in (job := KubernetesJob(one)).annotations and not job.is_over)

    def _treat(self, job: KubernetesJob) -> bool:
        """Start a Job if it is due; return False after a failure, which leaves the Job to the next pass."""
        label, now = f"Job {job.namespace}/{job.name}", datetime.now(timezone.utc)
        until = job.annotations[UNTIL]
        due = parse_time(until)
        try:
            if not job.is_suspended:
                job.change(self._api, {UNTIL: None})
                self._print_line(f"{label} was started by somebody else, and has no planned time any more.")
            elif job.is_of_kueue:
                self._print_line(f"{label} is in a queue of Kueue, which has to start it.")
            elif due is None:
                self._print_line(
                    f"{label} stays suspended: its annotation {UNTIL} is not a time such as 2027-03-02T01:30:00Z. "
                    f"Correct it: kubectl -n {job.namespace} annotate --overwrite job {job.name} {UNTIL}=TIME"
                )
                return False
            elif due <= now:
                job.change(self._api, {UNTIL: None, DUE: until, WOKEN: iso(now)}, suspend=False)
                self._print_line(f"{label} was due at {until} and is started.")
        except KubernetesError as error:
            if error.status == CONFLICT:  # by another waker, or the next pass does it
                return True
            if error.status in (401, 403):
                raise
            self._print_line(f"{label} could not be started: {error}. The next pass tries again.")
            return False
        return True

    # -- the Lease ----------------------------------------------------------------------------------------------------

    def _check_permission(self) -> None:
        """Raise if this waker may not start Jobs."""
        if not may_patch_jobs(self._api, self._namespace):
            where = "all namespaces" if self._namespace is None else f"the namespace {self._namespace}"
            raise KubernetesError(
                f"the service account may not patch Jobs in {where}",
                403,
                "Apply the manifests of `lightning-green kubernetes waker-manifest`.",
            )

    def _report(self) -> None:
        """Renew the Lease, which supervisors read before they suspend a Job."""
        now = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        note = {"annotations": {SCOPE: self._namespace or ALL}}
        change = {
            "metadata": note,
            "spec": {
                "holderIdentity": os.environ.get("HOSTNAME") or platform.node(),
                "leaseDurationSeconds": max(1, round(self._interval.total_seconds())),
                "renewTime": now,
            },
        }
        what = f"the Lease {LEASE} in the namespace {self._own}"
        if WakerLease.read(self._api, self._own) is not None:
            self._api.patch(WakerLease.path(self._own), f"patch {what}", change)
            return
        kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
        content = {**kind, **change, "metadata": {"name": LEASE, **note}}
        try:
            self._api.create(WakerLease.path(self._own, ""), f"create {what}", content)
        except KubernetesError as error:
            if error.status != CONFLICT:  # another waker was faster
                raise
