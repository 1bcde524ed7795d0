"""Objects of Kubernetes: a Job, its pod, and the Lease of the waker."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from lightning_green.supervisor.launchers.kubernetes_api import MISSING, KubernetesAPI, KubernetesError, checked

UNTIL = "lightning-green/until"
"""Annotation: time from which a suspended Job has to run again. Without it, somebody else has suspended the Job."""
DUE = "lightning-green/due-at"
"""Annotation: ``UNTIL`` of the last release."""
WOKEN = "lightning-green/woken-at"
"""Annotation: time at which the waker has started the Job again."""
FIRST_POD = "lightning-green/first-pod"
"""Annotation: uid of the first pod of the Job in which a supervisor has started."""
KUEUE = "kueue.x-k8s.io/queue-name"
"""Label of the Jobs that Kueue suspends and starts."""
LEASE = "lightning-green-waker"
"""Name of the Lease that a waker renews."""
SCOPE = "lightning-green/namespaces"
"""Annotation of the Lease: namespace of the Jobs that the waker starts, or ``ALL``."""
ALL = "*"
LEASE_LIMIT = timedelta(minutes=10)
"""Longest time since the last pass of a waker with which a Job is suspended."""
_CONTROLLER = "kubernetes.io/job-controller"


def iso(time: datetime) -> str:
    """Return a time as Kubernetes writes it, in whole seconds.

    Examples:
        >>> iso(datetime(2027, 3, 2, 1, 30, tzinfo=timezone.utc))
        '2027-03-02T01:30:00Z'

    """
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: Any) -> datetime | None:
    """Return a time in an object of Kubernetes, or None.

    Examples:
        >>> parse_time("2027-03-02T01:30:00.000000Z")
        datetime.datetime(2027, 3, 2, 1, 30, tzinfo=datetime.timezone.utc)

    """
    with suppress(ValueError, TypeError, OverflowError, AttributeError):
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return None if time.tzinfo is None else time.astimezone(timezone.utc)
    return None


@dataclass(frozen=True)
class Object:
    """Any object of Kubernetes.

    Args:
        fields: The object as JSON.

    """

    fields: Mapping[str, Any]

    def part(self, *names: str) -> Mapping[str, Any]:
        """Return a mapping inside of the object; an empty one if there is none."""
        found: Any = self.fields
        for name in names:
            found = found.get(name) if isinstance(found, Mapping) else None
        return found if isinstance(found, Mapping) else {}

    @property
    def name(self) -> str:
        """Its name."""
        return str(self.part("metadata").get("name", ""))

    @property
    def namespace(self) -> str:
        """Its namespace."""
        return str(self.part("metadata").get("namespace", ""))

    @property
    def uid(self) -> str:
        """Its uid, which another object of the same name does not have."""
        return str(self.part("metadata").get("uid", ""))

    @property
    def version(self) -> str:
        """Its resource version, which each change replaces."""
        return str(self.part("metadata").get("resourceVersion", ""))

    @property
    def annotations(self) -> Mapping[str, Any]:
        """Its annotations."""
        return self.part("metadata", "annotations")

    @property
    def created(self) -> datetime | None:
        """Time of its creation."""
        return parse_time(self.part("metadata").get("creationTimestamp"))

    def is_younger_than(self, age: timedelta) -> bool:
        """Return whether it was created less than a time ago."""
        return self.created is not None and datetime.now(timezone.utc) - self.created < age

    @property
    def controller(self) -> Mapping[str, Any]:
        """The owner that controls it; an empty mapping without one."""
        owners = self.part("metadata").get("ownerReferences") or ()
        return next((one for one in owners if isinstance(one, Mapping) and one.get("controller")), {})


@dataclass(frozen=True)
class KubernetesJob(Object):
    """A Job."""

    @classmethod
    def path(cls, namespace: str, name: str) -> str:
        """Return the path of a Job."""
        return f"/apis/batch/v1/namespaces/{checked(namespace)}/jobs/{checked(name)}"

    @classmethod
    def read(cls, api: KubernetesAPI, namespace: str, name: str) -> KubernetesJob:
        """Return a Job.

        Raises:
            KubernetesError: If it cannot be read.

        """
        return cls(api.get(cls.path(namespace, name), f"get the Job {name}"))

    def change(
        self, api: KubernetesAPI, annotations: Mapping[str, str | None], suspend: bool | None = None
    ) -> KubernetesJob:
        """Change the Job in one request, unless somebody else has changed it in the meantime; return it.

        Args:
            api: The API server.
            annotations: Annotations to set, or to remove with None.
            suspend: Whether it is suspended; None to leave that.

        Raises:
            KubernetesError: If it was not changed, or that is unknown.

        """
        change: dict[str, Any] = {"metadata": {"resourceVersion": self.version, "annotations": dict(annotations)}}
        if suspend is not None:
            change["spec"] = {"suspend": suspend}
        return KubernetesJob(api.patch(self.path(self.namespace, self.name), f"patch the Job {self.name}", change))

    @property
    def is_suspended(self) -> bool:
        """Whether it is suspended."""
        return self.part("spec").get("suspend") is True

    @property
    def is_over(self) -> bool:
        """Whether it has finished, or is being deleted."""
        conditions = self.part("status").get("conditions") or ()
        ended = any(
            one.get("type") in ("Complete", "Failed") and one.get("status") == "True"
            for one in conditions
            if isinstance(one, Mapping)
        )
        return ended or "deletionTimestamp" in self.part("metadata")

    @property
    def is_of_kueue(self) -> bool:
        """Whether Kueue suspends and starts it."""
        return KUEUE in self.part("metadata", "labels")

    @property
    def ends_at(self) -> float | None:
        """Time at which ``activeDeadlineSeconds`` ends it, in seconds since the epoch, or None."""
        limit, started = (
            self.part("spec").get("activeDeadlineSeconds"),
            parse_time(self.part("status").get("startTime")),
        )
        return None if started is None or not isinstance(limit, int) else started.timestamp() + limit

    def why_not_suspended(self) -> str | None:
        """Return why it must not be suspended, as a sentence with the remedy; None if it may be."""
        owner, manager = self.controller.get("kind", "CronJob"), self.part("spec").get("managedBy", _CONTROLLER)
        if self.is_over:
            return f"Job {self.name} has ended or is being deleted."
        if self.is_of_kueue:
            return f"Job {self.name} is in a queue of Kueue, which decides itself when it is suspended."
        if owner != "CronJob" or manager != _CONTROLLER:
            return f"Job {self.name} is managed by {owner if owner != 'CronJob' else manager}, which would start it."
        if self.part("spec").get("parallelism", 1) != 1:
            return f"Job {self.name} has several pods, and a suspension ends all of them. Use one Job per training."
        return None


@dataclass(frozen=True)
class WakerLease(Object):
    """The Lease in which a waker reports its passes."""

    @classmethod
    def path(cls, namespace: str, name: str = f"/{LEASE}") -> str:
        """Return the path of the Lease of a namespace."""
        return f"/apis/coordination.k8s.io/v1/namespaces/{checked(namespace)}/leases{name}"

    @classmethod
    def read(cls, api: KubernetesAPI, namespace: str) -> WakerLease | None:
        """Return the Lease of a namespace, or None if there is none.

        Raises:
            KubernetesError: If it cannot be read.

        """
        try:
            return cls(api.get(cls.path(namespace), f"get the Lease {LEASE} in the namespace {namespace}"))
        except KubernetesError as error:
            if error.status == MISSING:
                return None
            raise

    @property
    def interval(self) -> timedelta:
        """Time between two passes of the waker."""
        seconds = self.part("spec").get("leaseDurationSeconds")
        return timedelta(seconds=min(seconds, 3600) if isinstance(seconds, int) and seconds > 0 else 60)

    def covers(self, namespace: str) -> bool:
        """Return whether the waker starts the Jobs of a namespace."""
        return self.annotations.get(SCOPE, self.namespace) in (ALL, namespace)

    def is_current(self, now: datetime) -> bool:
        """Return whether the last pass was less than ``LEASE_LIMIT`` ago."""
        renewed = parse_time(self.part("spec").get("renewTime"))
        return renewed is not None and now - renewed <= LEASE_LIMIT


def may_patch_jobs(api: KubernetesAPI, namespace: str | None, name: str = "") -> bool:
    """Return whether this process has the right to patch Jobs. Nothing is changed.

    Args:
        api: The API server.
        namespace: Namespace of the Jobs; None for all namespaces.
        name: Name of a Job; empty for all Jobs.

    Raises:
        KubernetesError: If the server does not answer.

    """
    asked = {"verb": "patch", "group": "batch", "resource": "jobs", "namespace": namespace or "", "name": name}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {key: text for key, text in asked.items() if text}},
    }
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    answer = Object(api.create(path, "review its own permissions", review))
    return answer.part("status").get("allowed") is True
