"""A service, or a network between it and this machine, that attacks this process."""

import gzip
import json
import threading
import zlib
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lightning_green.grid import HttpJsonSignal
from lightning_green.utilities.http.errors import RefusedError, UnreachableError, UnreadableError
from lightning_green.utilities.http.transport import Limits, Transport
from tests.helpers.json_server import json_server

LIMITS = Limits(attempts=1, size=1_000_000, total=5.0)
BODY = json.dumps({"a": list(range(1000))}).encode()


@contextmanager
def server_of(data, *headers):
    """Run a server that answers with these bytes and headers."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.seen.append((self.path, self.headers))
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.seen, server.url = [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def get(url, **options):
    transport = Transport(LIMITS)
    try:
        return transport.get(url, **options)
    finally:
        transport.close()


@pytest.mark.parametrize("options", [{"headers": {"auth-token": "secret"}}, {"auth": ("me", "secret")}])
@pytest.mark.parametrize("host", ["service.example", "10.0.0.1", "127.0.0.1.evil.example", "localhost.evil.example"])
def test_credential_is_not_sent_over_http(options, host):
    with pytest.raises(RefusedError, match="sent over https only, and the address of") as error:
        get(f"http://{host}/x", **options)
    assert "secret" not in str(error.value)


def test_address_without_a_credential_may_be_http():
    with pytest.raises(UnreachableError):
        get("http://service.invalid/x")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_credential_for_this_machine_does_not_pass_through_a_proxy(monkeypatch, host):
    with json_server() as proxy, json_server() as service:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        url = service.url.replace("127.0.0.1", host)
        assert get(f"{url}/x", headers={"Authorization": "Bearer secret"}).body == {}
        assert proxy.seen == []
        assert service.seen == [("/x", "Bearer secret")]


def test_source_with_a_token_at_an_http_address_reports_it(monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("LIGHTNING_GREEN_GRID_TOKEN", "secret")
    (problem,) = HttpJsonSignal("http://meter.example/co2").refresh()
    assert problem == "the credential is sent over https only, and the address of meter.example is http"


def test_compressed_answer_is_read():
    with server_of(gzip.compress(BODY), ("Content-Encoding", "gzip")) as server:
        assert get(server.url).body == json.loads(BODY)
        assert server.seen[0][1]["Accept-Encoding"] == "gzip"


@pytest.mark.parametrize("megabytes", [2, 500])
def test_compressed_answer_is_limited_by_its_content(megabytes):
    pack = zlib.compressobj(9, wbits=31)
    data = b"".join([*(pack.compress(b" " * 1_000_000) for _ in range(megabytes)), pack.flush()])
    with (
        server_of(data, ("Content-Encoding", "gzip")) as server,
        pytest.raises(UnreadableError, match="answers with more than 1 MB"),
    ):
        get(server.url)


@pytest.mark.parametrize("encoding", ["gzip, gzip", "deflate", "br", "zstd", "x"])
def test_encoding_that_was_not_requested_is_refused(encoding):
    data = gzip.compress(gzip.compress(b" " * 10_000_000))
    with (
        server_of(data, ("Content-Encoding", encoding)) as server,
        pytest.raises(UnreadableError, match="in an encoding that was not requested"),
    ):
        get(server.url)


@pytest.mark.parametrize("data", [b"\x1f\x8b", b"no gzip", gzip.compress(BODY)[:50]], ids=["short", "text", "cut"])
def test_damaged_compression_is_one_error(data):
    with server_of(data, ("Content-Encoding", "gzip")) as server, pytest.raises(UnreadableError):
        get(server.url)


@pytest.mark.parametrize("depth", [60, 900, 400_000])
@pytest.mark.parametrize("kind", ["list", "object"])
def test_nested_answer_is_one_error(depth, kind):
    opened, closed = ("[", "]") if kind == "list" else ('{"a":', "}")
    depth //= len(opened)
    data = (opened * max(depth, 60) + "1" + closed * max(depth, 60)).encode()
    with server_of(data) as server, pytest.raises(UnreadableError, match="nested too deeply"):
        get(server.url)


def test_nested_answer_does_not_end_a_signal(monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path))
    with server_of(b"[" * 200_000) as server:
        signal = HttpJsonSignal(server.url)
        (problem,) = signal.refresh()
        assert problem == "127.0.0.1 answers with JSON that is nested too deeply"
