"""Requests, redirects, retries and errors of the transport, against real servers."""

import shutil
import ssl
import subprocess
import threading
import time

import pytest

from lightning_green.utilities.http.errors import LimitedError, RefusedError, UnreachableError, UnreadableError
from lightning_green.utilities.http.transport import Limits, Transport
from tests.helpers.fake_grid import TOKEN, FakeGrid
from tests.helpers.live_signals import FAST, NOW


def test_redirect_to_another_port_is_refused(grid):
    with FakeGrid(NOW) as other:
        transport = Transport(FAST)
        with pytest.raises(UnreadableError, match="redirects to another host"):
            transport.get(
                grid.url("to") + other.url("em", "127.0.0.1").replace("http://", "/"), headers={"auth-token": TOKEN}
            )
        transport.close()
        assert other.requests == []


def test_untrusted_certificate_is_refused(tmp_path):
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=127.0.0.1",
        *files,
    ]
    if shutil.which("openssl") is None:
        pytest.skip("creating a certificate needs openssl")
    subprocess.run(command, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with FakeGrid(NOW) as secure:
        secure._server.socket = context.wrap_socket(secure._server.socket, server_side=True)
        transport = Transport(Limits(attempts=1))
        with pytest.raises(UnreachableError, match="cannot be reached"):
            transport.get(f"https://127.0.0.1:{secure.port}/em/v3/x", headers={"auth-token": TOKEN})
        transport.close()
        assert secure.requests == []


@pytest.mark.parametrize(
    ("fault", "error", "message"),
    [
        ("too_large", UnreadableError, "more than 5 MB"),
        ("not_json", UnreadableError, "not JSON"),
        ("html_200", UnreadableError, "HTML"),
        ("429", LimitedError, "too many requests"),
        ("401_empty", RefusedError, "credential"),
    ],
)
def test_error_names_the_cause_and_hides_secrets(grid, fault, error, message):
    grid.faults = {None: fault}
    transport = Transport(Limits(attempts=1))
    with pytest.raises(error, match=message) as caught:
        transport.get(grid.url("em") + "/v3/carbon-intensity/latest", {"secret": "in-the-query"}, {"auth-token": TOKEN})
    transport.close()
    text = f"{caught.value!r} {caught.value} {caught.value.__cause__}"
    assert TOKEN not in text
    assert "in-the-query" not in text
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_retries_only_errors_that_may_be_temporary(grid):
    limits = Limits(connect=0.5, read=0.25, total=0.3, attempts=3, wait=0.001, patience=0.05)
    for fault, attempts in {
        "500": 3,
        "reset": 3,
        "truncated": 3,
        "401_empty": 1,
        "404": 1,
        "not_json": 1,
        "429": 1,
    }.items():
        grid.faults, grid.requests = {None: fault}, []
        transport = Transport(limits)
        with pytest.raises(Exception, match=r"127\.0\.0\.1"):
            transport.get(grid.url("em") + "/v3/x", headers={"auth-token": TOKEN})
        transport.close()
        assert len(grid.requests) == attempts, fault


def test_short_retry_after_is_waited_for(grid):
    grid.faults, grid.requests = {None: "busy_once"}, []
    transport = Transport(Limits(patience=2.0, attempts=2))
    began = time.monotonic()
    transport.get(grid.url("em") + "/v3/carbon-intensity/latest", {"zone": "DE"}, {"auth-token": TOKEN})
    transport.close()
    assert len(grid.requests) == 2
    assert time.monotonic() - began >= 1.0  # no upper limit, which would depend on the machine


def test_client_is_reused_and_its_tls_context_is_shared(grid):
    first, second = Transport(FAST), Transport(FAST)
    url = grid.url("em") + "/v3/carbon-intensity/latest"
    for _ in range(3):
        first.get(url, {"zone": "DE"}, {"auth-token": TOKEN})
        client = first._client
        first.get(url, {"zone": "DE"}, {"auth-token": TOKEN})
        assert first._client is client
    second.get(url, {"zone": "DE"}, {"auth-token": TOKEN})
    pools = [transport._client._transport._pool for transport in (first, second)]
    assert pools[0]._ssl_context is pools[1]._ssl_context
    first.close()
    second.close()


def test_loading_certificates_is_not_part_of_the_limit(grid, monkeypatch):
    def slow(file, folder):
        time.sleep(1.2)
        return ssl.create_default_context()

    monkeypatch.setattr("lightning_green.utilities.http.transport._tls_context", slow)
    transport = Transport(Limits(total=1.0, attempts=1))
    url = grid.url("em") + "/v3/carbon-intensity/latest"
    assert transport.get(url, {"zone": "DE"}, {"auth-token": TOKEN}).body["zone"] == "DE"
    transport.close()


def test_cancel_ends_a_request_without_another_attempt_and_closes_the_client(grid):
    grid.faults = {None: "500"}
    transport = Transport(Limits(attempts=50, wait=60.0))
    errors = []

    def get():
        with pytest.raises(Exception, match="server error") as caught:
            transport.get(grid.url("em") + "/v3/x", headers={"auth-token": TOKEN})
        errors.append(caught.value)

    thread = threading.Thread(target=get)
    thread.start()
    while not grid.requests:
        time.sleep(0.01)
    transport.cancel()
    thread.join(timeout=10)
    assert len(errors) == 1
    assert len(grid.requests) < 5
    assert transport._client is None
