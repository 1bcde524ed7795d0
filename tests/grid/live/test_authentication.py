"""Credentials in requests, and nowhere else."""

import inspect
import json
import pickle
from datetime import timedelta

import pytest

from lightning_green import grid as signals
from lightning_green.grid.providers.electricity_maps import ElectricityMapsSignal
from lightning_green.grid.providers.http_json import HttpJsonSignal
from lightning_green.grid.providers.watttime import WattTimeSignal
from tests.helpers.fake_grid import PASSWORD, TOKEN, USER
from tests.helpers.live_signals import NOW, PROVIDERS

CLASSES = [value for value in vars(signals).values() if inspect.isclass(value)]


@pytest.mark.parametrize("cls", [cls for cls in CLASSES if "url" in inspect.signature(cls).parameters])
def test_password_in_the_address_is_refused(cls):
    valid = {
        "zone": "DK1" if cls is signals.EnergiDataServiceSignal else "DE",
        "location": "eastus",
        "kind": "average/lifecycle",
        "query": "up",
    }
    arguments = {name: valid[name] for name in inspect.signature(cls).parameters if name in valid}
    with pytest.raises(ValueError, match="`url` should not contain a user name or a password"):
        cls(**arguments, url="https://ada:s3cret@service.example")


def test_each_service_receives_only_its_own_credential(grid, build):
    for name in PROVIDERS:
        build(name).refresh(NOW)
    assert {service for service, *_ in grid.requests} >= {"em", "watttime", "json"}
    assert grid.count("watttime", "/login") == 1
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


def test_token_from_the_environment_or_a_file_is_sent_as_bearer(grid, build, monkeypatch, tmp_path):
    monkeypatch.setenv("LIGHTNING_GREEN_GRID_TOKEN", "site-secret")
    build("json").refresh(NOW)
    file = tmp_path / "token"
    file.write_text("file-secret\n")
    signal = HttpJsonSignal(grid.url("json") + "/co2", zone="DE", value="now.g", time="now.t", token_file=str(file))
    signal.refresh(NOW)
    signal.close()
    assert [headers["authorization"] for *_, headers in grid.requests] == ["Bearer site-secret", "Bearer file-secret"]


def test_missing_credential_sends_nothing_and_names_the_variable(grid, build, monkeypatch):
    monkeypatch.delenv("ELECTRICITYMAPS_API_TOKEN")
    monkeypatch.delenv("WATTTIME_PASSWORD")
    for name, variable in (("em", "ELECTRICITYMAPS_API_TOKEN"), ("watttime", "WATTTIME_PASSWORD")):
        signal = build(name)
        signal.refresh(NOW)
        assert variable in signal.problem
        assert variable in " ".join(signal.pop_messages())
        assert signal.intensity(NOW) is None
    assert grid.requests == []


WRONG = "127.0.0.1 does not accept the credential (401): "


def test_refusal_names_the_likely_reason(grid, build, monkeypatch, tmp_path):
    monkeypatch.setenv("ELECTRICITYMAPS_API_TOKEN", "of-france")
    monkeypatch.setenv("WATTTIME_PASSWORD", "wrong")
    maps, login = build("em"), build("watttime")
    maps.refresh(NOW)
    login.refresh(NOW)
    assert maps.problem == WRONG + "the token is wrong or is for another zone than DE"
    assert len(maps.pop_messages()) == 1, "one message about three requests"
    assert login.problem == WRONG + "the user name in WATTTIME_USERNAME or its password is wrong"
    monkeypatch.setenv("WATTTIME_PASSWORD", PASSWORD)
    grid.faults = {None: "403"}
    login.refresh(NOW, force=True)
    assert login.problem.endswith("or the account has no access to the region (a free account: CAISO_NORTH only)")


def test_refusal_of_a_self_hosted_service_names_the_variable_or_the_file(grid, build, monkeypatch, tmp_path):
    grid.faults = {None: "401_html"}
    without = build("json")
    without.refresh(NOW)
    assert without.problem == "127.0.0.1 requires a credential (401): LIGHTNING_GREEN_GRID_TOKEN should be set"
    monkeypatch.setenv("LIGHTNING_GREEN_GRID_TOKEN", "old")
    with_token = build("json")
    with_token.refresh(NOW)
    assert with_token.problem == WRONG + "the token in LIGHTNING_GREEN_GRID_TOKEN is wrong or has expired"
    file = tmp_path / "token"
    file.write_text("another\n")  # the failure of the other token is cached
    signal = HttpJsonSignal(grid.url("json") + "/co2", zone="DE", value="now.g", time="now.t", token_file=str(file))
    signal.refresh(NOW)
    signal.close()
    assert signal.problem == WRONG + f"the token in {file} is wrong or has expired"


@pytest.mark.parametrize("name", ["neso", "charts", "eds"])
def test_403_of_a_service_without_a_key_is_about_this_machine(grid, build, name):
    grid.faults = {None: "403"}
    signal = build(name)
    signal.refresh(NOW)
    assert signal.problem == "127.0.0.1 refuses the request (403): the service may block the address of this machine"


def test_new_credential_does_not_inherit_the_failure_of_the_old_one(grid, build, monkeypatch):
    monkeypatch.setenv("ELECTRICITYMAPS_API_TOKEN", "wrong")
    signal = build("em")
    signal.refresh(NOW)
    assert "does not accept the credential" in signal.problem
    monkeypatch.setenv("ELECTRICITYMAPS_API_TOKEN", TOKEN)
    assert signal.refresh(NOW) == []
    assert signal.intensity(NOW) is not None


def test_expired_token_is_renewed_exactly_once(grid, build):
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
    paths = [path for _, path, _, _ in grid.requests]
    assert paths.count("/v3/forecast") == 2, "one new login and one more attempt"
    assert "does not accept the credential" in signal.problem


def test_secrets_appear_in_no_repr_pickle_spec_or_error(grid, build):
    for name in ("em", "watttime"):
        for fault in (None, "401_html", "500", "redirect_away", "reset"):
            grid.faults = {None: fault}
            signal = build(name)
            failures = signal.refresh(NOW, force=True)
            texts = [
                repr(signal),
                repr(vars(signal)),
                str(signal.spec()),
                signal.describe(),
                *failures,
                *signal.pop_messages(),
            ]
            texts += [json.dumps(signal.spec()), pickle.dumps(signal).decode("latin-1"), str(signal.problem)]
            with pytest.raises(TypeError, match="cannot be pickled"):
                pickle.dumps(signal.fetcher.authentication.credential())
            for secret in (TOKEN, PASSWORD, f"token-{grid.tokens}"):
                assert not any(secret in text for text in texts), (name, fault)
    copied = pickle.loads(pickle.dumps(WattTimeSignal("CAISO_NORTH")))
    assert copied.fetcher.authentication.credential().reveal() == f"{USER}:{PASSWORD}"
    assert isinstance(pickle.loads(pickle.dumps(ElectricityMapsSignal("DE"))), ElectricityMapsSignal)


def test_redirect_keeps_the_credential_within_the_host_only(grid, build):
    grid.faults = {None: "redirect_here"}
    signal = build("em")
    assert signal.refresh(NOW) == []
    assert all(headers["auth-token"] == TOKEN for *_, headers in grid.requests)

    grid.faults, grid.requests = {None: "redirect_away"}, []
    signal.refresh(NOW, force=True)  # to another host name
    assert "redirects to another host" in signal.problem
    assert grid.count("em", "elsewhere") == 0
