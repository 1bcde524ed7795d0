"""A Kubernetes Job, which is suspended during a planned exit, and which a waker starts again."""

from __future__ import annotations

import os
import platform
import signal
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, ClassVar

from typing_extensions import override

from lightning_green.supervisor.launchers.kubernetes_api import (
    CONFLICT,
    MISSING,
    TOTAL_SECONDS,
    Access,
    KubernetesAPI,
    KubernetesError,
    checked,
)
from lightning_green.supervisor.launchers.kubernetes_job import (
    DUE,
    FIRST_POD,
    LEASE_LIMIT,
    UNTIL,
    WOKEN,
    KubernetesJob,
    Object,
    WakerLease,
    iso,
    may_patch_jobs,
    parse_time,
)
from lightning_green.supervisor.launchers.launcher import RELEASED_EXIT_CODE, SHORTEST_RELEASE, Launcher, Release

POD_VARIABLE = "LIGHTNING_GREEN_POD"
"""Name of the pod; set by the manifest, since the name of the host may be another one."""
WAKER_NAMESPACE_VARIABLE = "LIGHTNING_GREEN_WAKER_NAMESPACE"
"""Namespace of the waker; by default that of the pod."""
START_SECONDS = 20.0
"""Time limit of the requests at the start, after which a training starts without them."""
QUERY_SECONDS = 5.0
"""Time limit of a request while a training runs."""
WOKEN_SECONDS = 300.0
"""Longest time from the end of a suspension to the creation of the pod that follows it."""
CONFLICTS = 20
_KEPT = "The pod keeps its devices during the wait."
_WAKER = "Start one: lightning-green kubernetes waker-manifest --image IMAGE | kubectl apply -f -"


class KubernetesLauncher(Launcher):
    """A pod of a Kubernetes Job.

    Args:
        environment: Environment variables of the pod.
        directory: Directory of the service account; None for that of Kubernetes.

    Examples:
        >>> KubernetesLauncher({"HOSTNAME": "train-x7k2p"}).pod_name
        'train-x7k2p'

    """

    name: ClassVar[str] = "Kubernetes"
    can_release = True

    def __init__(self, environment: Mapping[str, str] = os.environ, directory: Path | None = None) -> None:
        super().__init__(environment)
        self._directory = directory
        self._pod: Object | None = None
        self._first_job: KubernetesJob | None = None
        self._interval = timedelta(seconds=60)
        self._is_ending = False

    @classmethod
    def detect(cls, environment: Mapping[str, str] = os.environ) -> bool:
        """Return whether this process is in a pod."""
        return bool(environment.get("KUBERNETES_SERVICE_HOST"))

    @property
    def pod_name(self) -> str:
        """Name of the pod."""
        return self.environment.get(POD_VARIABLE) or self.environment.get("HOSTNAME") or platform.node()

    @property
    def has_restarted(self) -> bool:
        """Whether an earlier pod of the same Job has started a supervisor; False if that is unknown."""
        if self._first_job is None or self._pod is None:
            return False
        first = str(self._first_job.annotations.get(FIRST_POD, self._pod.uid))
        return first != self._pod.uid

    # -- the start ----------------------------------------------------------------------------------------------------

    @override
    def prepare(self, print_line: Callable[[str], None]) -> None:
        """Find out whether a release will be possible, on which the cost of a planned exit depends.

        A waker that was created together with the Job may still be starting, and is looked for again at the exit.
        """
        problem, may_change = None, False
        try:
            api = self._api(START_SECONDS)
            job = self._first_job = self._mark_first(api)
            problem = job.why_not_suspended()
            if problem is None:
                problem, may_change = self._waker_problem(api), job.is_younger_than(LEASE_LIMIT)
        except KubernetesError as error:
            problem, may_change = _sentences(error), not error.is_final
        if problem is not None:
            self.can_release = may_change
            so_far = " so far" if may_change else ""
            print_line(f"This pod cannot be released during a planned exit{so_far}: {problem} {_KEPT}")

    def examine(self, total: float = START_SECONDS) -> tuple[str, str | None]:
        """Return the name of the Job, and why it would not be suspended, as sentences, or None. Nothing is changed.

        Args:
            total: Time limit in seconds.

        Raises:
            KubernetesError: If the server does not answer, or refuses it.

        """
        api = self._api(total)
        job = self._own_job(api)
        problem = job.why_not_suspended() or self._waker_problem(api)
        if problem is None and not may_patch_jobs(api, job.namespace, job.name):
            problem = "The service account may not patch the Job. Apply the Role of `lightning-green kubernetes job`."
        return job.name, problem

    def _mark_first(self, api: KubernetesAPI) -> KubernetesJob:
        """Record in the Job that this is its first pod, unless there was one before; return the Job."""
        for _ in range(CONFLICTS):
            job = self._own_job(api)
            if FIRST_POD in job.annotations or self._pod is None:
                return job
            try:
                return job.change(api, {FIRST_POD: self._pod.uid})
            except KubernetesError as error:
                if error.status != CONFLICT:
                    raise
        return job

    def _api(self, total: float = TOTAL_SECONDS) -> KubernetesAPI:
        return KubernetesAPI(Access.of_pod(self.environment, self._directory), total)

    def _own_job(self, api: KubernetesAPI) -> KubernetesJob:
        """Return the Job of this pod, not a later one of the same name."""
        namespace = api.access.namespace
        if self._pod is None:
            name = checked(self.pod_name)
            self._pod = Object(api.get(f"/api/v1/namespaces/{namespace}/pods/{name}", f"get the pod {name}"))
        owner = self._pod.controller
        if owner.get("kind") != "Job":
            raise KubernetesError(f"the pod {self._pod.name} is not the pod of a Job", MISSING)
        job = KubernetesJob.read(api, namespace, str(owner.get("name")))
        if job.uid != owner.get("uid"):
            raise KubernetesError(f"the Job {job.name} was replaced by another one of the same name", MISSING)
        return job

    def _waker_problem(self, api: KubernetesAPI) -> str | None:
        """Return why no waker would start a suspended Job again, as sentences; None if one would."""
        own = api.access.namespace
        namespace = checked(self.environment.get(WAKER_NAMESPACE_VARIABLE) or own)
        lease = WakerLease.read(api, namespace)
        if lease is None or not lease.covers(own):
            return f"No waker has reported for the namespace {own}, and a suspended Job would stay suspended. {_WAKER}"
        self._interval = lease.interval
        if not lease.is_current(datetime.now(timezone.utc)):
            limit = f"{LEASE_LIMIT.total_seconds() / 60:.0f} minutes"
            return f"The waker in the namespace {namespace} has not reported for more than {limit}. {_WAKER}"
        return None

    # -- the release --------------------------------------------------------------------------------------------------

    @property
    @override
    def shortest_release(self) -> timedelta:
        """The time between two passes of the waker."""
        return max(SHORTEST_RELEASE, self._interval)

    @override
    def release_until(self, begin: datetime, print_line: Callable[[str], None]) -> Release | None:
        """Suspend the Job of this pod, with the time at which the waker has to start it again.

        Kubernetes then sends SIGTERM to the pod. Until the process ends by itself, it ignores that signal.
        """
        before = signal.signal(signal.SIGTERM, self._note_end)
        try:
            api = self._api()
            job = self._own_job(api)
            problem = job.why_not_suspended()
            self.can_release = problem is None
            problem = problem or self._waker_problem(api)
            if problem is None:
                problem = self._suspend(api, job, iso(max(begin, datetime.now(timezone.utc))))
        except KubernetesError as error:
            problem, self.can_release = _sentences(error), not error.is_final
        if problem is None:
            when = iso(begin).replace("T", " ").replace("Z", " UTC")
            print_line(f"Job {job.name} is suspended, and its pod ends. The waker starts it again from {when} on.")
            return Release(f"Kubernetes Job {job.name}", RELEASED_EXIT_CODE)
        if self._is_ending:  # by an eviction, for example; the next pod waits
            print_line(f"Kubernetes ends this pod, and its Job is not suspended: {problem}")
            return Release("Kubernetes", 128 + signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
        print_line(f"The Job of this pod is not suspended: {problem} {_KEPT}")
        return None

    def _suspend(self, api: KubernetesAPI, job: KubernetesJob, until: str) -> str | None:
        """Suspend the Job; return why that was not possible, as a sentence, or None."""
        for _ in range(CONFLICTS):
            if job.is_suspended:  # by this process, if the answer to the request was lost
                is_own = job.annotations.get(UNTIL) == until
                return None if is_own else f"Somebody else has suspended the Job {job.name}."
            try:
                job.change(api, {UNTIL: until, DUE: None, WOKEN: None}, suspend=True)
                return None
            except KubernetesError as error:
                if error.status != CONFLICT:
                    raise
            job = self._own_job(api)
        return f"The Job {job.name} has changed {CONFLICTS} times during the request."

    def _note_end(self, number: int, frame: Any) -> None:
        self._is_ending = True

    # -- times --------------------------------------------------------------------------------------------------------

    @override
    def eligible_at(self) -> float | None:
        """Return the time at which the Job was due; after anything but a suspension, the creation of the pod."""
        created = None if self._pod is None else self._pod.created
        if created is None or self._first_job is None:
            return None
        notes = self._first_job.annotations
        due, woken = parse_time(notes.get(DUE)), parse_time(notes.get(WOKEN))
        if due is not None and woken is not None and abs((created - woken).total_seconds()) <= WOKEN_SECONDS:
            return min(due, created).timestamp()
        return created.timestamp()

    @override
    def ends_at(self) -> float | None:
        if not self.can_release:
            return None
        try:
            return self._own_job(self._api(QUERY_SECONDS)).ends_at
        except KubernetesError:
            return None if self._first_job is None else self._first_job.ends_at


def _sentences(error: KubernetesError) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}. {error.remedy}".strip()
