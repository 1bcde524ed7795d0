import pytest

from lightning_green.supervisor.launchers.kubernetes_api import Access, KubernetesAPI, KubernetesError
from tests.helpers.fake_kubernetes import make_certificate
from tests.helpers.kubernetes_fixtures import certificates, cluster

__all__ = ["certificates", "cluster"]
PATH = "/apis/batch/v1/namespaces/default/jobs/train"


def api(cluster, total=5.0):
    return KubernetesAPI(Access.of_pod(cluster.environment, cluster.directory), total)


@pytest.mark.parametrize("fault", [429, 500, 503, "hang", "lost"])
def test_temporary_error_is_tried_again(cluster, fault):
    cluster.add_job()
    cluster.faults = [("GET", "jobs", fault)] * 2
    assert api(cluster).get(PATH, "get the Job")["metadata"]["name"] == "train"
    assert len(cluster.requests) == 3


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, "does not get the Job (400)"),
        (401, "does not accept the token"),
        (403, "may not get the Job (403)"),
        (404, "does not exist (404)"),
        (409, "changed at the same time (409)"),
    ],
)
def test_refusal_is_not_tried_again(cluster, status, reason):
    cluster.add_job()
    cluster.faults = [("GET", "jobs", status)]
    with pytest.raises(KubernetesError) as raised:
        api(cluster).get(PATH, "get the Job")
    assert reason in str(raised.value)
    assert raised.value.is_final == (status != 409)
    assert len(cluster.requests) == 1


def test_repeated_error_ends_at_the_total_limit(cluster):
    cluster.faults = [("GET", "jobs", 500)] * 1000
    with pytest.raises(KubernetesError, match=r"reports an error \(500\)") as raised:
        api(cluster, total=0.2).get(PATH, "get the Job")
    assert not raised.value.is_final
    assert 1 < len(cluster.requests) < 1000


def test_token_is_read_again_for_each_request(cluster):
    cluster.add_job()
    client = api(cluster)
    client.get(PATH, "get the Job")
    cluster.tokens = {"token-2"}
    (cluster.directory / "token").write_text("token-2")
    assert client.get(PATH, "get the Job")["metadata"]["name"] == "train"


@pytest.mark.parametrize("fault", [401, 403, 404, 409, 422, 500, "hang"])
def test_messages_contain_neither_the_token_nor_text_of_the_server(cluster, fault):
    cluster.tokens = {"very-secret"}
    (cluster.directory / "token").write_text("very-secret")
    cluster.faults = [("GET", "jobs", fault)]
    with pytest.raises(KubernetesError) as raised:
        api(cluster, total=0.0).get(PATH, "get the Job")
    shown = f"{raised.value!r} {raised.value.remedy} {raised.value.__cause__!r}"
    assert "very-secret" not in shown
    assert "text of the server" not in shown


@pytest.mark.parametrize("token", ["", "a\nb", "t\u00f6ken"])
def test_damaged_token_is_not_sent(cluster, token):
    (cluster.directory / "token").write_text(token)
    with pytest.raises(KubernetesError, match="token"):
        api(cluster).get(PATH, "get the Job")
    assert cluster.requests == []


def test_server_with_another_certificate_gets_no_token(cluster, tmp_path):
    make_certificate(tmp_path)
    (cluster.directory / "ca.crt").write_bytes((tmp_path / "ca.crt").read_bytes())
    with pytest.raises(KubernetesError, match="cannot be reached"):
        api(cluster, total=0.0).get(PATH, "get the Job")
    assert cluster.requests == []


def test_proxy_in_the_environment_is_not_used(cluster, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("SSL_CERT_FILE", "/nonexistent")
    cluster.add_job()
    assert api(cluster).get(PATH, "get the Job")["metadata"]["name"] == "train"


def test_list_is_read_in_pages(cluster, monkeypatch):
    monkeypatch.setattr("lightning_green.supervisor.launchers.kubernetes_api.PAGE", 2)
    for number in range(5):
        cluster.add_job(f"job-{number}")
    found = api(cluster).items("/apis/batch/v1/jobs", "list the Jobs")
    assert [one["metadata"]["name"] for one in found] == [f"job-{number}" for number in range(5)]
    assert len(cluster.requests) == 3


@pytest.mark.parametrize(("name", "text"), [("namespace", "../kube-system"), ("ca.crt", "no certificate")])
def test_damaged_service_account(cluster, name, text):
    (cluster.directory / name).write_text(text)
    with pytest.raises(KubernetesError):
        api(cluster)


def test_pod_without_a_service_account(tmp_path):
    with pytest.raises(KubernetesError) as raised:
        Access.of_pod({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path)
    assert "automountServiceAccountToken" in raised.value.remedy


def test_addresses(tmp_path):
    (tmp_path / "namespace").write_text("default")
    variables = {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    assert Access.of_pod(variables, tmp_path).url == "https://[fd00::1]:6443"
    for url in ("http://10.0.0.1:8001", "https://example.org", "x://", ""):
        with pytest.raises(KubernetesError, match="not an address of this machine"):
            Access.of_proxy(url)
