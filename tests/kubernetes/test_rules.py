import copy

import pytest

from lightning_green.kubernetes.manifests import Training
from lightning_green.kubernetes.rules import problems

JOB = Training("train:1", ["python", "train.py"], "runs", memory="32Gi").manifests()[-1]
POD = ("spec", "template", "spec")
CONTAINER = (*POD, "containers", 0)
RULES = ("spec", "podFailurePolicy", "rules")
COMMAND = JOB["spec"]["template"]["spec"]["containers"][0]["command"]
MISSING = object()


def changed(path, value):
    job = copy.deepcopy(JOB)
    place = job
    for key in path[:-1]:
        place = place[key]
    if value is MISSING:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return job


def command(old, *new):
    """Return the command with words replaced."""
    words = " ".join(COMMAND)
    assert old in words
    return words.replace(old, " ".join(new)).split()


@pytest.mark.parametrize(
    ("path", "value", "part"),
    [
        (("metadata", "name"), "Train_1", "lower-case letters"),
        (("metadata", "name"), "a" * 64, "at most 63"),
        (("metadata", "namespace"), "a/b", "not a name of Kubernetes"),
        ((*POD, "restartPolicy"), "OnFailure", "should be Never"),
        ((*POD, "restartPolicy"), MISSING, "should be Never"),
        ((*POD, "serviceAccountName"), MISSING, "no service account"),
        ((*POD, "automountServiceAccountToken"), False, "token of the service account"),
        ((*POD, "terminationGracePeriodSeconds"), MISSING, "is 30, and should be longer"),
        ((*POD, "terminationGracePeriodSeconds"), 300, "is 300, and should be longer"),
        ((*POD, "containers"), [], "one container"),
        ((*POD, "volumes"), [{"name": "runs", "emptyDir": {}}], "not on a persistent volume"),
        ((*CONTAINER, "volumeMounts"), [], "not on a persistent volume"),
        ((*CONTAINER, "volumeMounts", 0, "readOnly"), True, "not on a persistent volume"),
        ((*CONTAINER, "volumeMounts", 0, "mountPath"), "/dev/shm", "same mount path"),
        ((*CONTAINER, "volumeMounts", 1, "mountPath"), "/data/lightning_green_runs", "not on a persistent volume"),
        ((*CONTAINER, "volumeMounts", 1, "mountPath"), "shm", "should be absolute"),
        ((*CONTAINER, "volumeMounts", 0, "mountPath"), "/", "and not '/'"),
        ((*POD, "volumes", 0, "persistentVolumeClaim", "claimName"), "Runs", "volume claim is not a name"),
        ((*POD, "terminationGracePeriodSeconds"), "10m", "is 10m, and should be longer"),
        ((*CONTAINER, "image"), "train: 1", "not a name of an image"),
        ((*CONTAINER, "env"), [{"name": "A"}, {"name": "A"}], "is set twice"),
        ((*CONTAINER, "image"), " ", "image is missing"),
        ((*CONTAINER, "resources", "limits", "memory"), "32 GB", "should be a quantity"),
        ((*CONTAINER, "env", 0, "name"), "1A", "not a name of an environment variable"),
        ((*CONTAINER, "command"), command("--launcher kubernetes"), "--launcher kubernetes"),
        ((*CONTAINER, "command"), ["sh", "-c", " ".join(COMMAND)], "without a shell"),
        ((*CONTAINER, "command"), command("python train.py"), "training command is missing"),
        ((*CONTAINER, "command"), command("--run-dir", "--fresh", "--run-dir"), "`--fresh` would start from scratch"),
        ((*CONTAINER, "command"), command("--run-dir /data/", "--run-dir data/"), "absolute path"),
        ((*CONTAINER, "command"), command("--run-dir /data/", "--run-dir=/data/../tmp/"), "absolute path"),
        ((*CONTAINER, "command"), command("300s", "6m"), "should be longer than `--stop-timeout`"),
        ((*CONTAINER, "command"), command("300s", "soon"), "should be longer than `--stop-timeout`"),
        (("spec", "parallelism"), 2, "should be 1"),
        (("spec", "podReplacementPolicy"), "TerminatingOrFailed", "should be Failed"),
        (("spec", "activeDeadlineSeconds"), 0, "positive integer"),
        (("spec", "podFailurePolicy"), MISSING, "A planned exit would be a failure"),
        (("spec", "podFailurePolicy"), MISSING, "An eviction would be a failure"),
        ((*RULES, 0, "action"), "Count", "An eviction would be a failure"),
        ((*RULES, 1, "action"), "Count", "A planned exit would be a failure"),
        ((*RULES, 1, "onExitCodes", "values"), ["75"], "should be integers"),
        ((*RULES, 1, "onExitCodes", "values"), [143, 75], "ascending order"),
        ((*RULES, 1, "onExitCodes", "values"), [0, 75], "does not accept the exit code 0"),
        ((*RULES, 1, "onExitCodes", "containerName"), "main", "names the container 'main'"),
        ((*RULES, 1, "onPodConditions"), [{"type": "DisruptionTarget"}], "either onExitCodes or onPodConditions"),
    ],
)
def test_rule_finds_the_problem(path, value, part):
    found = problems(changed(path, value))
    assert any(part in one for one in found), found


def test_generated_job_has_no_problem():
    assert problems(JOB) == []


def test_stop_timeout_with_an_equals_sign_is_read():
    job = changed((*CONTAINER, "command"), command("--stop-timeout 300s", "--stop-timeout=1h"))
    assert any("should be longer" in one for one in problems(job))


@pytest.mark.parametrize("job", [{}, {"spec": {}}, {"spec": {"template": {"spec": None}}}])
def test_empty_job_is_reported_without_an_exception(job):
    assert problems(job)
