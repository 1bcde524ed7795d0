"""Rules for the Job of a training: what an API server requires, and what keeps the run safe."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from lightning_green.supervisor.launchers.launcher import RELEASED_EXIT_CODE
from lightning_green.utilities.durations import parse_duration

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_IMAGE = re.compile(r"[\w][\w./:@-]*", re.ASCII)
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_VARIABLE = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_DEFAULT_STOP_SECONDS = 300.0
_DEFAULT_GRACE_SECONDS = 30


def problems(job: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the Job of a training, one sentence each.

    Args:
        job: The manifest of the Job.

    Examples:
        >>> from lightning_green.kubernetes.manifests import Training
        >>> problems(Training("image", ["python", "train.py"], "runs").manifests()[-1])
        []

    """
    spec = job.get("spec") or {}
    pod = (spec.get("template") or {}).get("spec") or {}
    metadata = job.get("metadata") or {}
    found = list(_of_names(metadata, pod))
    found += _of_job(spec, pod)
    if len(pod.get("containers") or ()) != 1:
        return [*found, "The pod should have one container, that of the supervisor."]
    return found + list(_of_container(pod["containers"][0], pod))


def _of_names(metadata: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    if _LABEL.fullmatch(str(metadata.get("name", ""))) is None:  # it becomes a label of the pods
        yield (
            f"The name should consist of at most 63 lower-case letters, digits and '-', got {metadata.get('name')!r}."
        )
    if _LABEL.fullmatch(str(metadata.get("namespace", "default"))) is None:
        yield f"The namespace is not a name of Kubernetes: {metadata['namespace']!r}."
    for volume in pod.get("volumes") or ():
        claim = (volume.get("persistentVolumeClaim") or {}).get("claimName", "a")
        if _NAME.fullmatch(str(claim)) is None:
            yield f"The volume claim is not a name of Kubernetes: {claim!r}."
    if not pod.get("serviceAccountName"):
        yield "The pod has no service account with the right to suspend its Job."
    if pod.get("automountServiceAccountToken") is False:
        yield "The token of the service account is not mounted, so that the Job cannot be suspended."


def _of_job(spec: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    if pod.get("restartPolicy") != "Never":
        yield "`restartPolicy` should be Never: an API server refuses others together with a podFailurePolicy."
    if spec.get("parallelism", 1) != 1 or spec.get("completions", 1) != 1:
        yield "`parallelism` and `completions` should be 1: a suspension ends all pods of a Job."
    if "podFailurePolicy" in spec and spec.get("podReplacementPolicy", "Failed") != "Failed":
        yield "`podReplacementPolicy` should be Failed: an API server refuses others together with a podFailurePolicy."
    rules = (spec.get("podFailurePolicy") or {}).get("rules") or ()
    names = {one.get("name") for one in pod.get("containers") or ()}
    yield from _of_failures(rules, names)
    limit = spec.get("activeDeadlineSeconds")
    if limit is not None and not (isinstance(limit, int) and limit > 0):
        yield f"`activeDeadlineSeconds` should be a positive integer, got {limit!r}."


def _of_failures(rules: Sequence[Mapping[str, Any]], containers: set[Any]) -> Iterator[str]:
    ignored: set[int] = set()
    disrupted = False
    for rule in rules:
        codes = rule.get("onExitCodes")
        if (codes is None) == ("onPodConditions" not in rule):
            yield "A rule of `podFailurePolicy` should have either onExitCodes or onPodConditions."
            continue
        if codes is None:
            types = [one.get("type") for one in rule["onPodConditions"]]
            disrupted = disrupted or (rule.get("action") == "Ignore" and "DisruptionTarget" in types)
            continue
        values = codes.get("values") or []
        if not values or not all(isinstance(code, int) and not isinstance(code, bool) for code in values):
            yield f"Exit codes should be integers, got {values!r}."
            continue
        if codes.get("operator") == "In" and 0 in values:
            yield "The operator In does not accept the exit code 0."
        if sorted(set(values)) != list(values):
            yield f"Exit codes should be in ascending order and unique, got {values!r}."
        if codes.get("containerName") not in {None, *containers}:
            yield f"`podFailurePolicy` names the container {codes['containerName']!r}, which does not exist."
        if rule.get("action") == "Ignore" and codes.get("operator") == "In":
            ignored |= set(values)
    if RELEASED_EXIT_CODE not in ignored:
        yield f"A planned exit would be a failure: `podFailurePolicy` should ignore exit code {RELEASED_EXIT_CODE}."
    if not disrupted:
        yield "An eviction would be a failure: `podFailurePolicy` should ignore DisruptionTarget."


def _of_container(container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    words = [*(container.get("command") or ()), *(container.get("args") or ())]
    own = words[: words.index("--")] if "--" in words else words
    image = str(container.get("image") or "").strip()
    if _IMAGE.fullmatch(image) is None:
        yield f"The image is not a name of an image: {image!r}." if image else "The image is missing."
    if own[:2] != ["lightning-green", "run"] or _option(own, "--launcher") != "kubernetes":
        yield "The command should start with `lightning-green run --launcher kubernetes`, without a shell around it."
    if not words[len(own) + 1 :]:
        yield "The training command is missing. Add it after `--`."
    if "--fresh" in own:
        yield "`--fresh` would start from scratch in each pod whose predecessor is unknown. Use another run directory."
    stop = _seconds(_option(own, "--stop-timeout"))
    grace = pod.get("terminationGracePeriodSeconds", _DEFAULT_GRACE_SECONDS)
    if stop is None or not isinstance(grace, int) or grace <= stop:
        yield (
            f"`terminationGracePeriodSeconds` is {grace}, and should be longer than `--stop-timeout`: a training that "
            "is still saving its state would be killed."
        )
    yield from _of_volume(_option(own, "--run-dir"), container, pod)
    yield from _of_values(container)


def _of_volume(run_dir: str | None, container: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    if run_dir is None or not PurePosixPath(run_dir).is_absolute() or ".." in PurePosixPath(run_dir).parts:
        yield "The command should have `--run-dir` with an absolute path on a volume: the file system of a pod is lost."
        return
    lasting = {
        one.get("name") for one in pod.get("volumes") or () if not {"emptyDir", "configMap", "secret"} & one.keys()
    }
    mounts = container.get("volumeMounts") or ()
    above = [one for one in mounts if PurePosixPath(run_dir).is_relative_to(str(one.get("mountPath")))]
    innermost: Mapping[str, Any] = max(above, key=lambda one: len(PurePosixPath(one["mountPath"]).parts), default={})
    if innermost.get("name") not in lasting or innermost.get("readOnly"):
        yield f"The run directory {run_dir} is not on a persistent volume that can be written."
    paths = [str(one.get("mountPath")) for one in mounts]
    if len(set(paths)) < len(paths):
        yield "Two volumes have the same mount path."
    if any(not PurePosixPath(path).is_absolute() or ":" in path or not path.strip("/") for path in paths):
        yield f"A mount path should be absolute, without ':' and not '/', got {paths!r}."


def _of_values(container: Mapping[str, Any]) -> Iterator[str]:
    for amounts in (container.get("resources") or {}).values():
        for name, amount in amounts.items():
            if _QUANTITY.fullmatch(str(amount)) is None:
                yield f"The amount of {name} should be a quantity such as 8, 500m or 32Gi, got {amount!r}."
    names = [variable.get("name") for variable in container.get("env") or ()]
    if len(set(names)) < len(names):
        yield f"An environment variable is set twice: {', '.join(map(str, names))}."
    for variable in container.get("env") or ():
        if _VARIABLE.fullmatch(str(variable.get("name"))) is None:
            yield f"{variable.get('name')!r} is not a name of an environment variable."


def _option(words: Sequence[str], name: str) -> str | None:
    for place, word in enumerate(words):
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
        if word == name and place + 1 < len(words):
            return words[place + 1]
    return None


def _seconds(text: str | None) -> float | None:
    if text is None:
        return _DEFAULT_STOP_SECONDS
    try:
        return parse_duration(text).total_seconds()
    except ValueError:
        return None
