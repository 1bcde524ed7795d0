"""What a source may see of us, how often, and what stays on disk."""

import json
import os
import pickle
import random
import shutil
import ssl
import subprocess
import sys
import textwrap
import threading
import time
from datetime import timedelta

import numpy as np
import pytest

from lightning_green.grid.live import signal as live
from lightning_green.grid.live.cache import Cache
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.http_json import HttpJsonSignal
from lightning_green.grid.providers.watttime import WattTimeSignal
from lightning_green.utilities.http.errors import LimitedError, RefusedError, UnreachableError, UnreadableError
from lightning_green.utilities.http.transport import Limits, Transport
from tests.servers.conftest import FAST, NOW, PROVIDERS
from tests.servers.fake_grid import PASSWORD, TOKEN, USER, FakeGrid

MINUTE = timedelta(minutes=1)


def test_each_service_gets_its_credential_and_no_other(grid, build):
    for name in PROVIDERS:
        build(name).refresh(NOW)
    for service, path, query, headers in grid.requests:
        sent = {name: value for name, value in headers.items() if name in ("auth-token", "authorization")}
        if service == "em":
            assert sent == {"auth-token": TOKEN}
        elif path == "/login":
            assert sent["authorization"].startswith("Basic ")
        elif service == "watttime":
            assert sent == {"authorization": "Bearer token-1"}
        else:
            assert sent == {}
        assert TOKEN not in str(query)
        assert headers["user-agent"] == "lightning-green"


def test_the_token_of_a_site_is_sent_as_a_bearer_from_the_environment_or_a_file(grid, build, monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTNING_GREEN_GRID_TOKEN", "site-secret")
    build("json").refresh(NOW)
    file = tmp_path / "token"
    file.write_text("file-secret\n")
    signal = HttpJsonSignal(grid.url("json") + "/co2", zone="DE", value="now.g", time="now.t", token_file=str(file))
    signal.refresh(NOW)
    signal.close()
    assert [headers["authorization"] for *_, headers in grid.requests] == ["Bearer site-secret", "Bearer file-secret"]


def test_without_a_credential_nothing_is_asked_and_the_variable_is_named(grid, build, monkeypatch):
    monkeypatch.delenv("ELECTRICITYMAPS_API_TOKEN")
    monkeypatch.delenv("WATTTIME_PASSWORD")
    for name, variable in (("em", "ELECTRICITYMAPS_API_TOKEN"), ("watttime", "WATTTIME_PASSWORD")):
        signal = build(name)
        signal.refresh(NOW)
        assert variable in signal.problem
        assert variable in " ".join(signal.news())
        assert signal.intensity(NOW) is None
    assert grid.requests == []


def test_a_new_credential_does_not_wait_for_the_failure_of_the_old_one(grid, build, monkeypatch):
    monkeypatch.setenv("ELECTRICITYMAPS_API_TOKEN", "wrong")
    signal = build("em")
    signal.refresh(NOW)
    assert "does not accept the credential" in signal.problem
    monkeypatch.setenv("ELECTRICITYMAPS_API_TOKEN", TOKEN)
    assert signal.refresh(NOW) == []
    assert signal.intensity(NOW) is not None


def test_an_expired_token_is_renewed_once_and_no_more(grid, build):
    signal = build("watttime")
    signal.refresh(NOW)
    assert grid.count("watttime", "/login") == 1
    grid.valid_token = ""  # expired on the server
    grid.requests.clear()
    signal.refresh(NOW + timedelta(hours=1))
    assert [path for _, path, _, _ in grid.requests][:3] == ["/v3/forecast", "/login", "/v3/forecast"]
    assert grid.count("watttime", "/login") == 1
    assert signal.problem is None

    grid.faults, grid.requests = {"watttime": "401_html"}, []
    signal.refresh(NOW + timedelta(hours=2))
    asked = [path for _, path, _, _ in grid.requests]
    assert asked.count("/v3/forecast") == 2, "one new log-in, one more try, and no more"
    assert "does not accept the credential" in signal.problem


def test_a_redirect_within_the_host_is_followed_and_one_to_another_host_is_not(grid, build):
    grid.faults = {None: "redirect_here"}
    signal = build("em")
    assert signal.refresh(NOW) == []
    assert all(headers["auth-token"] == TOKEN for *_, headers in grid.requests)

    with FakeGrid(NOW) as other:
        grid.faults, grid.requests = {None: "redirect_away"}, []
        signal.refresh(NOW, force=True)  # to another name
        assert "redirects to another host" in signal.problem
        assert grid.count("em", "elsewhere") == 0
        grid.faults, transport = {}, Transport(FAST)  # and to another port of the same name
        with pytest.raises(UnreadableError, match="redirects to another host"):
            transport.get(
                grid.url("to") + other.url("em", "127.0.0.1").replace("http://", "/"), headers={"auth-token": TOKEN}
            )
        transport.close()
        assert other.requests == []


def test_a_certificate_that_nobody_vouches_for_is_refused(grid, tmp_path):
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", *files]
    if shutil.which("openssl") is None:
        pytest.skip("making a certificate needs openssl")
    subprocess.run(made, check=True, capture_output=True)
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
def test_named_errors(grid, fault, error, message):
    grid.faults = {None: fault}
    transport = Transport(Limits(attempts=1))
    with pytest.raises(error, match=message) as caught:
        transport.get(grid.url("em") + "/v3/carbon-intensity/latest", {"secret": "in-the-query"}, {"auth-token": TOKEN})
    transport.close()
    told = f"{caught.value!r} {caught.value} {caught.value.__cause__}"
    assert TOKEN not in told
    assert "in-the-query" not in told
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_asking_leaves_the_random_numbers_of_a_training_alone(grid, build):
    random.seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist()
    for name in PROVIDERS:
        for fault in (None, "500", "reset"):
            grid.faults = {None: fault}
            build(name).refresh(NOW, force=True)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before


def test_tries_again_with_a_wait_only_where_that_may_help(grid):
    limits = Limits(connect=0.5, read=0.25, total=0.3, attempts=3, wait=0.001, patience=0.05)
    for fault, tries in {
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
        assert len(grid.requests) == tries, fault


def test_a_short_retry_after_is_waited_for_and_a_long_one_is_kept_to(grid, build):
    grid.faults = {None: "429_retry_after"}
    signal = build("em")
    signal.refresh(NOW)
    assert len(grid.requests) == 3, "one request each for the value, the history and the forecast"
    grid.faults = {}
    signal.refresh(NOW + timedelta(seconds=119))
    assert len(grid.requests) == 3
    signal.refresh(NOW + timedelta(seconds=121))
    assert len(grid.requests) == 6
    assert signal.problem is None

    grid.faults, grid.requests = {None: "busy_once"}, []
    transport = Transport(Limits(patience=2.0, attempts=2))
    began = time.monotonic()
    transport.get(grid.url("em") + "/v3/carbon-intensity/latest", {"zone": "DE"}, {"auth-token": TOKEN})
    transport.close()
    assert len(grid.requests) == 2
    assert time.monotonic() - began >= 1.0  # no upper limit: that would be a timing


def test_the_circuit_breaker_leaves_a_dead_source_alone(grid, build):
    grid.faults = {None: "500"}
    signal = build("charts")
    for minute in range(180):
        signal.refresh(NOW + minute * MINUTE)
    rounds = grid.count("charts") / 2 / FAST.attempts  # two addresses, each tried so often in one round
    assert rounds <= 10, "a minute, two, four, ... and then every half hour"
    assert len(signal.news()) == 1, "the same trouble is told once"
    grid.faults = {}
    signal.refresh(NOW + 211 * MINUTE)
    assert signal.problem is None
    assert any("answers again" in sentence for sentence in signal.news())


@pytest.mark.slow
def test_polls_no_more_often_than_the_data_changes(grid, build):
    signals = {name: build(name) for name in PROVIDERS}
    for minute in range(180):
        grid.now = NOW + minute * MINUTE
        for signal in signals.values():
            signal.refresh(grid.now)
    most = {"em": 3 * 4, "neso": 2 * 7, "charts": 13 + 2, "eds": 37 + 4, "sdk": 2 * 4, "json": 4, "prometheus": 37 + 4}
    for name, count in most.items():
        assert grid.count(name) <= count, name
    assert grid.count("watttime", "forecast") <= 37
    assert grid.count("watttime", "/login") == 1, "the token is kept"


def test_asks_only_for_what_is_new(grid, build):
    signal = build("em")
    signal.refresh(NOW)
    signal.refresh(NOW, force=True)
    latest = [headers for _, path, _, headers in grid.requests if path.endswith("/latest")]
    assert "if-none-match" not in latest[0]
    assert latest[1]["if-none-match"] == f'"{NOW.timestamp():.0f}"'
    assert signal.intensity(NOW) is not None


CHILD = """
    import sys
    from datetime import datetime
    from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
    signal = ElectricityMapsSignal("DE", url=sys.argv[1])
    now = datetime.fromisoformat(sys.argv[2])
    print("ready", flush=True)
    sys.stdin.readline()
    signal.refresh(now)
    print(signal.intensity(now).value, flush=True)
"""


def test_processes_of_a_machine_share_one_request_and_a_restart_reads_before_it_asks(grid, build):
    grid.faults = {None: "slow"}  # slow enough that all of them ask while the first one waits
    command = [sys.executable, "-c", textwrap.dedent(CHILD), grid.url("em"), NOW.isoformat()]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **pipes, env=dict(os.environ)) for _ in range(3)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    values = {float(child.communicate(timeout=60)[0]) for child in children}
    assert len(values) == 1
    assert sorted(path.rsplit("/", 1)[1] for _, path, _, _ in grid.requests) == ["forecast", "history", "latest"]

    signal = build("em")
    signal.recall(NOW + MINUTE)
    assert signal.intensity(NOW + MINUTE).value in values
    assert len(grid.requests) == 3


def test_threads_of_a_process_share_one_request_too(grid, build):
    signals = [build("charts") for _ in range(4)]
    threads = [threading.Thread(target=signal.refresh, args=(NOW,)) for signal in signals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert grid.count("charts") == 2
    assert {signal.intensity(NOW).value for signal in signals} == {signals[0].intensity(NOW).value}


def test_a_cache_that_cannot_be_written_is_said_once_and_each_process_asks_for_itself(grid, build, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    signal = build("charts")
    signal.cache = Cache(tmp_path / "file" / "cache")
    signal.refresh(NOW)
    signal.refresh(NOW + timedelta(hours=1))
    assert signal.intensity(NOW) is not None
    assert len([sentence for sentence in signal.news() if "cannot be written" in sentence]) == 1
    before = grid.count("charts")
    signal.refresh(NOW + timedelta(hours=1, seconds=1))
    assert grid.count("charts") == before, "what is in memory counts"


def test_the_cache_is_for_this_user_alone_and_survives_a_torn_file(grid, build):
    signal = build("em")
    signal.refresh(NOW)
    assert os.stat(signal.cache.folder).st_mode & 0o077 == 0
    for path in signal.cache.folder.glob("*.json"):
        path.write_bytes(path.read_bytes()[:100])
    again = build("em")
    again.recall(NOW)
    assert again.intensity(NOW) is None
    assert again.refresh(NOW) == []
    assert again.intensity(NOW) is not None


def test_no_secret_in_a_repr_a_pickle_a_spec_or_an_error(grid, build):
    for name in ("em", "watttime"):
        for fault in (None, "401_html", "500", "redirect_away", "reset"):
            grid.faults = {None: fault}
            signal = build(name)
            failures = signal.refresh(NOW, force=True)
            shown = [repr(signal), repr(vars(signal)), str(signal.spec()), signal.describe(), *failures, *signal.news()]
            shown += [json.dumps(signal.spec()), pickle.dumps(signal).decode("latin-1"), str(signal.problem)]
            with pytest.raises(TypeError, match="not pickled"):
                pickle.dumps(signal.credential())
            for secret in (TOKEN, PASSWORD, f"token-{grid.tokens}"):
                assert not any(secret in text for text in shown), (name, fault)
    copied = pickle.loads(pickle.dumps(WattTimeSignal("CAISO_NORTH")))
    assert copied.credential().reveal() == f"{USER}:{PASSWORD}"
    assert isinstance(pickle.loads(pickle.dumps(ElectricityMapsSignal("DE"))), ElectricityMapsSignal)


def test_polls_on_a_thread_of_its_own_and_lives_through_a_mistake(grid, build, monkeypatch):
    signal = build("charts")
    signal.bind_clock(lambda: NOW)
    broken = threading.Event()

    def mistake(body):
        broken.set()
        raise KeyError("a mistake of ours")

    import lightning_green.grid.providers.energy_charts as module

    monkeypatch.setattr(module, "parse_co2eq", mistake)
    signal.start()
    assert broken.is_set()
    assert signal.intensity(NOW) is None
    assert "unexpected KeyError" in " ".join(signal.news())
    assert signal._thread.is_alive()
    monkeypatch.undo()


def test_start_waits_for_a_first_answer_and_not_for_a_silent_server(grid, build, monkeypatch):
    good = build("charts")
    good.bind_clock(lambda: NOW)
    good.start()
    assert good.intensity(NOW) is not None
    good.close()
    assert good._transport is None

    monkeypatch.setattr(live, "FIRST_ANSWER_SECONDS", 0.3)
    grid.faults = {None: "drip_headers"}
    silent = build("json")
    silent.bind_clock(lambda: NOW)
    silent.limits = Limits(read=60.0, total=60.0)
    silent.start()
    assert not silent._answered.is_set()
    assert silent.intensity(NOW) is None
    grid.drip_until = 0.0
