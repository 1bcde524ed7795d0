"""Manifests of a training and of the waker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lightning_green.supervisor.launchers.kubernetes import POD_VARIABLE, WAKER_NAMESPACE_VARIABLE
from lightning_green.supervisor.launchers.kubernetes_job import LEASE
from lightning_green.supervisor.launchers.launcher import AWAITING_EXIT_CODE, RELEASED_EXIT_CODE

Manifest = dict[str, Any]

STOP_MARGIN_SECONDS = 60
"""Time from the end of ``--stop-timeout`` to the end of the pod."""
STOPPED_EXIT_CODE = 143
"""Exit code of a supervisor after SIGTERM: the state is saved, and the same command continues."""
LASTING_EXIT_CODES = (AWAITING_EXIT_CODE, 126, 127)
"""Exit codes that another start does not change: a used budget, a command that cannot be executed or does not exist.

Exit code 2 is not among them: it may come from a volume that cannot be written for a moment.
"""
BACKOFF_LIMIT = 3
CONTAINER = "training"
_LABEL = {"app.kubernetes.io/managed-by": "lightning-green"}
_RBAC = "rbac.authorization.k8s.io"
_SAFE = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


@dataclass(frozen=True)
class Training:
    """A training as a Job.

    Args:
        image: Image with the command and ``lightning-green``.
        command: Training command.
        volume_claim: Name of the PersistentVolumeClaim with the run directory.
        name: Name of all objects, and of the run directory.
        namespace: Namespace of the Job.
        mount: Where the volume is mounted.
        gpus: Number of GPUs.
        cpu: CPUs to request, such as ``"8"``; None to request none.
        memory: Memory to request and limit, such as ``"32Gi"``; None to request none.
        grace_seconds: Time that Kubernetes gives the pod to end; a minute less is the ``--stop-timeout``.
        active_seconds: Longest time without a suspension; None for no limit.
        user: User and group id of the process; None for those of the image.
        environment: Further environment variables.
        waker_namespace: Namespace of the waker; None for that of the Job.

    """

    image: str
    command: Sequence[str]
    volume_claim: str
    name: str = "training"
    namespace: str = "default"
    mount: str = "/data"
    gpus: int = 0
    cpu: str | None = None
    memory: str | None = None
    grace_seconds: int = 360
    active_seconds: int | None = None
    user: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    waker_namespace: str | None = None

    def manifests(self) -> list[Manifest]:
        """Return a service account, its rights, and the Job."""
        waker = self.waker_namespace or self.namespace
        rules = [_rule("", "pods", "get"), _rule("batch", "jobs", "get", "patch")]
        if waker == self.namespace:
            rules.append({**_rule("coordination.k8s.io", "leases", "get"), "resourceNames": [LEASE]})
        return [*account(self.name, self.namespace, "Role", rules), self._job()]

    def _job(self) -> Manifest:
        spec: Manifest = {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": BACKOFF_LIMIT,
            "podReplacementPolicy": "Failed",  # never two pods in one run directory
            "podFailurePolicy": {"rules": failure_rules()},
            "template": {"metadata": {"labels": {**_LABEL, "app.kubernetes.io/name": self.name}}, "spec": self._pod()},
        }
        if self.active_seconds is not None:
            spec["activeDeadlineSeconds"] = self.active_seconds
        return _object("batch/v1", "Job", self.name, self.namespace) | {"spec": spec}

    def _pod(self) -> Manifest:
        pod: Manifest = {
            "restartPolicy": "Never",
            "serviceAccountName": self.name,
            "terminationGracePeriodSeconds": self.grace_seconds,
            "containers": [self._container()],
            "volumes": [
                {"name": "runs", "persistentVolumeClaim": {"claimName": self.volume_claim}},
                {"name": "shared-memory", "emptyDir": {"medium": "Memory"}},  # of the workers of a DataLoader
            ],
        }
        if self.user is not None:
            ids = {"runAsUser": self.user, "runAsGroup": self.user, "fsGroup": self.user}
            pod["securityContext"] = {"runAsNonRoot": self.user != 0, **ids}
        return pod

    def _container(self) -> Manifest:
        own = {"cpu": self.cpu, "memory": self.memory}
        requests = {name: amount for name, amount in own.items() if amount is not None}
        limits = {} if self.memory is None else {"memory": self.memory}
        if self.gpus:
            limits["nvidia.com/gpu"] = str(self.gpus)
        resources = {name: amounts for name, amounts in (("requests", requests), ("limits", limits)) if amounts}
        variables: list[Manifest] = [
            {"name": POD_VARIABLE, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            *({"name": name, "value": _literal(value)} for name, value in self.environment.items()),
        ]
        if self.waker_namespace is not None and self.waker_namespace != self.namespace:
            variables.append({"name": WAKER_NAMESPACE_VARIABLE, "value": self.waker_namespace})
        return {
            "name": CONTAINER,
            "image": self.image,
            "command": self.supervised(),
            "env": variables,
            "resources": resources,
            "volumeMounts": [
                {"name": "runs", "mountPath": self.mount},
                {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108  (a mount point)
            ],
            "securityContext": _SAFE,
        }

    def supervised(self) -> list[str]:
        """Return the command of the container, in which Kubernetes would replace ``$(NAME)``."""
        stop = max(1, self.grace_seconds - STOP_MARGIN_SECONDS)
        folder = f"{self.mount.rstrip('/')}/lightning_green_runs/{self.name}"
        words = ["--launcher", "kubernetes", "--run-dir", folder, "--stop-timeout", f"{stop}s", "--", *self.command]
        return ["lightning-green", "run", *map(_literal, words)]


def failure_rules() -> list[Manifest]:
    """Return the rules of a Job for pods that have failed, of which the first that applies counts.

    Evictions, drained nodes, planned exits and stops by SIGTERM do not count as failures. Errors that another start
    does not change end the Job at once. Everything else counts towards ``backoffLimit``.
    """
    ignored = [RELEASED_EXIT_CODE, STOPPED_EXIT_CODE]
    codes = {"containerName": CONTAINER, "operator": "In"}
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "Ignore", "onExitCodes": {**codes, "values": ignored}},
        {"action": "FailJob", "onExitCodes": {**codes, "values": list(LASTING_EXIT_CODES)}},
    ]


def waker_manifests(image: str, namespace: str = "default", all_namespaces: bool = False) -> list[Manifest]:
    """Return a service account, its rights, and a CronJob that runs the waker every minute.

    Args:
        image: Image with ``lightning-green``.
        namespace: Namespace of the waker.
        all_namespaces: Whether it starts the Jobs of all namespaces, instead of those of its own.

    """
    jobs = _rule("batch", "jobs", "list", "patch")
    renew = {**_rule("coordination.k8s.io", "leases", "get", "patch"), "resourceNames": [LEASE]}
    create = _rule("coordination.k8s.io", "leases", "create")  # Kubernetes cannot limit `create` to a name
    objects = account(LEASE, namespace, "Role", [renew, create, *([] if all_namespaces else [jobs])])
    if all_namespaces:
        everywhere = account(LEASE, namespace, "ClusterRole", [jobs])[1:]
        reader = f"{LEASE}-reader"
        read = {**_rule("coordination.k8s.io", "leases", "get"), "resourceNames": [LEASE]}
        everyone = {"kind": "Group", "apiGroup": _RBAC, "name": "system:serviceaccounts"}
        objects += [*everywhere, *_rights(reader, namespace, "Role", [read], everyone)]
    container = {
        "name": "waker",
        "image": image,
        "command": [
            "lightning-green",
            "kubernetes",
            "waker",
            "--once",
            *(["--all-namespaces"] if all_namespaces else ["--namespace", namespace]),
        ],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "securityContext": {**_SAFE, "readOnlyRootFilesystem": True},
    }
    template = {
        "metadata": {"labels": {**_LABEL, "app.kubernetes.io/name": LEASE}},
        "spec": {"restartPolicy": "Never", "serviceAccountName": LEASE, "containers": [container]},
    }
    job = {"backoffLimit": 0, "activeDeadlineSeconds": 300, "ttlSecondsAfterFinished": 3600, "template": template}
    spec = {
        "schedule": "* * * * *",
        "concurrencyPolicy": "Forbid",
        "startingDeadlineSeconds": 120,
        "successfulJobsHistoryLimit": 1,
        "failedJobsHistoryLimit": 1,
        "jobTemplate": {"spec": job},
    }
    return [*objects, _object("batch/v1", "CronJob", LEASE, namespace) | {"spec": spec}]


def account(name: str, namespace: str, kind: str, rules: list[Manifest]) -> list[Manifest]:
    """Return a service account with rights.

    Args:
        name: Name of all objects.
        namespace: Their namespace.
        kind: ``"Role"``, or ``"ClusterRole"`` for rights in all namespaces.
        rules: The rights.

    """
    own = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
    return [_object("v1", "ServiceAccount", name, namespace), *_rights(name, namespace, kind, rules, own)]


def _rights(name: str, namespace: str, kind: str, rules: list[Manifest], subject: Manifest) -> list[Manifest]:
    where = None if kind == "ClusterRole" else namespace
    role = _object(f"{_RBAC}/v1", kind, name, where) | {"rules": rules}
    reference = {"apiGroup": _RBAC, "kind": kind, "name": name}
    binding = _object(f"{_RBAC}/v1", f"{kind}Binding", name, where)
    return [role, binding | {"roleRef": reference, "subjects": [subject]}]


def _object(version: str, kind: str, name: str, namespace: str | None) -> Manifest:
    where = {} if namespace is None else {"namespace": namespace}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, **where, "labels": dict(_LABEL)}}


def _rule(group: str, resource: str, *verbs: str) -> Manifest:
    return {"apiGroups": [group], "resources": [resource], "verbs": list(verbs)}


def _literal(text: str) -> str:
    return text.replace("$(", "$$(")
