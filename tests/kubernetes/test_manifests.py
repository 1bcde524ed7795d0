import pytest

from lightning_green.kubernetes.manifests import Training, waker_manifests
from lightning_green.kubernetes.rules import problems

FULL = Training(
    image="registry.example.org/train:1",
    command=["python", "train.py", "--lr", "0.1", "$(HOME)"],
    volume_claim="runs",
    name="resnet",
    namespace="ml",
    mount="/data/",
    gpus=2,
    cpu="8",
    memory="32Gi",
    grace_seconds=600,
    active_seconds=86400,
    user=1000,
    environment={"LIGHTNING_GREEN_ZONE": "DE"},
    waker_namespace="ops",
)
SMALL = Training("train:1", ["python", "train.py"], "runs")
SETS = {
    "full": FULL.manifests(),
    "small": SMALL.manifests(),
    "waker": waker_manifests("train:1"),
    "waker for all": waker_manifests("train:1", "ops", all_namespaces=True),
}


def by_kind(manifests, kind):
    (found,) = [one for one in manifests if one["kind"] == kind]
    return found


def rights(role):
    return {
        (group, resource, verb, *rule.get("resourceNames", ()))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("training", [FULL, SMALL], ids=["full", "small"])
def test_generated_job_follows_the_rules(training):
    assert problems(training.manifests()[-1]) == []


def test_command_is_the_supervisor_without_a_shell():
    (container,) = by_kind(SETS["full"], "Job")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == [
        *["lightning-green", "run", "--launcher", "kubernetes", "--run-dir", "/data/lightning_green_runs/resnet"],
        *["--stop-timeout", "540s", "--", "python", "train.py", "--lr", "0.1", "$$(HOME)"],
    ]


def test_only_what_another_start_does_not_change_fails_the_job_at_once():
    rules = by_kind(SETS["full"], "Job")["spec"]["podFailurePolicy"]["rules"]
    codes = {rule["action"]: rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule}
    assert codes == {"Ignore": [75, 143], "FailJob": [69, 126, 127]}


def test_training_has_the_least_rights():
    own = {("", "pods", "get"), ("batch", "jobs", "get"), ("batch", "jobs", "patch")}
    lease = ("coordination.k8s.io", "leases", "get", "lightning-green-waker")
    assert rights(by_kind(SETS["full"], "Role")) == own  # the Lease is in the namespace of the waker
    assert rights(by_kind(SETS["small"], "Role")) == own | {lease}


def test_waker_has_the_least_rights():
    jobs = {("batch", "jobs", "list"), ("batch", "jobs", "patch")}
    name = "lightning-green-waker"
    leases = {("coordination.k8s.io", "leases", verb, name) for verb in ("get", "patch")}
    leases |= {("coordination.k8s.io", "leases", "create")}
    assert rights(by_kind(SETS["waker"], "Role")) == jobs | leases
    own, reader = [one for one in SETS["waker for all"] if one["kind"] == "Role"]
    assert rights(own) == leases
    assert rights(reader) == {("coordination.k8s.io", "leases", "get", name)}
    assert rights(by_kind(SETS["waker for all"], "ClusterRole")) == jobs


@pytest.mark.parametrize("name", SETS)
def test_bindings_bind_what_exists(name):
    manifests = SETS[name]
    defined = {(one["kind"], one["metadata"]["name"], one["metadata"].get("namespace")) for one in manifests}
    for one in manifests:
        if not one["kind"].endswith("Binding"):
            continue
        where = one["metadata"].get("namespace")
        assert (one["roleRef"]["kind"], one["roleRef"]["name"], where) in defined
        (subject,) = one["subjects"]
        if subject["kind"] == "ServiceAccount":
            assert ("ServiceAccount", subject["name"], subject["namespace"]) in defined


def test_waker_runs_every_minute_and_once_at_a_time():
    spec = by_kind(SETS["waker"], "CronJob")["spec"]
    assert (spec["schedule"], spec["concurrencyPolicy"]) == ("* * * * *", "Forbid")
    (container,) = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    assert container["command"][-2:] == ["--namespace", "default"]


@pytest.mark.parametrize("name", SETS)
def test_schema_of_kubernetes_accepts_the_manifests(name):
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate (108 MB)")
    for one in SETS[name]:
        validator.validate(one, "1.37", strict=True)
