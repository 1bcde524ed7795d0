"""The grid source in the record of a pause that an attacker has written."""

import json
import os
import socket
import subprocess
import sys
from datetime import datetime, timedelta, timezone

import pytest

from lightning_green.grid import (
    ChainSignal,
    ConstantSignal,
    ElectricityMapsSignal,
    EnergyChartsSignal,
    HttpJsonSignal,
    NesoSignal,
    TraceSignal,
    TypicalDay,
    WattTimeSignal,
)
from lightning_green.grid.recorded import CLASSES, grid_from_record, spec_for_record
from lightning_green.utilities.user_key import keyed_hash
from tests.helpers.grids import MorningsLookClean
from tests.helpers.json_server import json_server
from tests.helpers.traces import write_trace

GRID = "lightning_green.grid."
SECRETS = {
    "ELECTRICITYMAPS_API_TOKEN": "em_SECRET",
    "WATTTIME_USERNAME": "me",
    "WATTTIME_PASSWORD": "wt_SECRET",
    "LIGHTNING_GREEN_GRID_TOKEN": "grid_SECRET",
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "cache"))


def plant(run, spec):
    """Write a run that is paused for two seconds and has this grid source."""
    now = datetime.now(timezone.utc)
    event = {
        "v": 2, "mono_s": 1.0, "node": "vm", "pid": 1, "attempt": 1, "seq": 1, "time_utc": now.isoformat(),
        "event": "paused", "reason": "x", "until": (now + timedelta(seconds=2)).isoformat(),
        "job": {"work_hours": 1, "deadline": (now + timedelta(days=1)).isoformat()}, "grid": spec,
    }  # fmt: skip
    run.mkdir(parents=True)
    (run / f"ledger.{socket.gethostname()}.jsonl").write_text(json.dumps(event) + "\n")
    (run / "run.json").write_text(json.dumps({"schema": 1, "run_id": "abc"}))


def supervise(run, folder, **environment):
    """Run the supervisor in a planted directory; return its messages."""
    command = [sys.executable, "-m", "lightning_green", "run", "--run-dir", str(run), "--", "true"]
    environment = {**os.environ, **SECRETS, **environment}
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=folder, env=environment)
    return result.stderr


@pytest.mark.slow
def test_record_sends_no_credential_anywhere_and_imports_nothing(tmp_path):
    (tmp_path / "token").write_text("hf_SECRET\n")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "side_effect.py").write_text(f"open({str(tmp_path / 'IMPORTED')!r}, 'w')\n")
    path = os.pathsep.join([str(tmp_path / "modules"), os.environ.get("PYTHONPATH", "")])
    with json_server() as attacker:
        specs = {
            "em": (f"{GRID}ElectricityMapsSignal", {"zone": "DE", "url": attacker.url}),
            "wt": (f"{GRID}WattTimeSignal", {"zone": "CAISO_NORTH", "url": attacker.url}),
            "file": (f"{GRID}HttpJsonSignal", {"url": attacker.url, "token_file": str(tmp_path / "token")}),
            "import": ("side_effect.X", {}),
        }
        for name, (cls, arguments) in specs.items():
            plant(tmp_path / name, {"class_path": cls, "init_args": arguments})
            messages = supervise(tmp_path / name, tmp_path, PYTHONPATH=path)
            assert "A new plan is not possible until the run resumes" in messages, messages
        assert attacker.seen == []
    assert not (tmp_path / "IMPORTED").exists()


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        ("ElectricityMapsSignal", {"zone": "DE", "url": "https://evil.example"}),
        ("ElectricityMapsSignal", {"zone": "DE", "token_file": "/etc/passwd"}),
        ("WattTimeSignal", {"zone": "CAISO_NORTH", "url": "http://127.0.0.1:1"}),
        ("WattTimeSignal", {"zone": "CAISO_NORTH", "password_file": "/etc/passwd"}),
        ("EnergyChartsSignal", {"zone": "DE", "url": "https://evil.example"}),
        ("NesoSignal", {"url": "https://evil.example"}),
        ("EnergiDataServiceSignal", {"zone": "DK1", "url": "https://evil.example"}),
        ("HttpJsonSignal", {"url": "https://evil.example"}),
        ("PrometheusSignal", {"url": "https://evil.example", "query": "x"}),
        ("CarbonAwareSdkSignal", {"location": "eastus", "kind": "average/direct", "url": "https://evil.example"}),
        ("TraceSignal", {"path": "/etc/passwd"}),
        ("FileSignal", {"path": "/etc/passwd"}),
        ("ConstantSignal", {"intensity": 3.0, "more": 1}),
        ("FunctionSignal", {"function": "os.getcwd"}),
        ("providers.trace.os", {}),
        ("ChainSignal", {"signal": {"class_path": f"{GRID}FileSignal", "init_args": {"path": "/etc/x"}}}),
        ("ChainSignal", {"signal": 3, "fallback": 4}),
        ("ChainSignal", {}),
        ("ConstantSignal", {"intensity": {"a": 1}}),
        ("TypicalDay", {"zone": 3}),
        ("ElectricityMapsSignal", {"zone": ["DE"], "max_age": {}}),
    ],
)
def test_unsigned_record_names_no_host_and_no_file(cls, arguments):
    for signature in ({}, {"signature": "0" * 64}, {"signature": 3}):
        with pytest.raises(ValueError, match=r"record|zone|intensity"):
            grid_from_record({"class_path": GRID + cls, "init_args": arguments, **signature})


@pytest.mark.parametrize("spec", [{}, {"class_path": 3}, {"class_path": "os.path"}, {"class_path": f"{GRID}x\x1b[2J"}])
def test_odd_record_is_one_clean_sentence(spec):
    with pytest.raises(ValueError, match="only sources of Lightning Green are used") as error:
        grid_from_record(spec)
    assert str(error.value).isprintable()


def test_chain_in_a_chain_is_refused():
    constant = {"class_path": f"{GRID}ConstantSignal", "init_args": {"intensity": 3.0}}
    inner = {"class_path": f"{GRID}ChainSignal", "init_args": {"signal": constant, "fallback": [constant]}}
    outer = {"class_path": f"{GRID}ChainSignal", "init_args": {"signal": inner, "fallback": [constant]}}
    with pytest.raises(ValueError, match="nested or too long"):
        grid_from_record(outer)


@pytest.mark.parametrize(
    "signal",
    [
        ConstantSignal(381.0),
        TypicalDay("DE"),
        NesoSignal(),
        EnergyChartsSignal("DE"),
        ElectricityMapsSignal("DE"),
        WattTimeSignal("CAISO_NORTH"),
        ChainSignal(EnergyChartsSignal("DE"), [TypicalDay("DE")]),
    ],
)
def test_services_at_their_own_address_need_no_signature(signal):
    record = json.loads(json.dumps(spec_for_record(signal)))
    assert "signature" not in record
    assert grid_from_record(record).spec() == signal.spec()


def test_source_of_the_own_training_is_signed(tmp_path):
    trace = TraceSignal(write_trace(tmp_path / "trace.csv", [1.0] * 3))
    service = HttpJsonSignal("http://127.0.0.1:9/co2", token_file=str(tmp_path / "token"))
    for signal in (trace, service, ChainSignal(service, [trace])):
        record = json.loads(json.dumps(spec_for_record(signal)))
        assert grid_from_record(record).spec() == signal.spec()
        other = json.loads(json.dumps(record).replace(str(tmp_path), str(tmp_path.parent)))
        with pytest.raises(ValueError, match="no process of this user has signed it"):
            grid_from_record(other)


def test_signature_of_another_user_is_refused(tmp_path, monkeypatch):
    record = spec_for_record(HttpJsonSignal("http://127.0.0.1:9/co2"))
    monkeypatch.setenv("LIGHTNING_GREEN_CACHE_DIR", str(tmp_path / "other"))
    with pytest.raises(ValueError, match="signed"):
        grid_from_record(record)


def test_class_of_the_script_is_recorded_and_not_imported():
    record = spec_for_record(MorningsLookClean())
    assert record == MorningsLookClean().spec()
    with pytest.raises(ValueError, match=r"names the grid source tests\.helpers\.grids\.MorningsLookClean"):
        grid_from_record(record | {"signature": keyed_hash("grid", json.dumps(list(record.values()), sort_keys=True))})


def test_every_class_of_the_table_exists():
    for name in CLASSES:
        with pytest.raises(ValueError, match=r"record|zone|trace"):
            grid_from_record({"class_path": GRID + name, "init_args": {"no_argument": 1}})
