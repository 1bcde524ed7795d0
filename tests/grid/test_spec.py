"""Specs of signals."""

from datetime import datetime, timezone

import pytest

from lightning_green.grid.providers.constant import ConstantSignal
from lightning_green.grid.providers.trace import TraceSignal
from lightning_green.grid.providers.typical_day import TypicalDay
from lightning_green.grid.spec import grid_from_spec
from tests.helpers.traces import write_trace

AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


@pytest.mark.parametrize("signal", [ConstantSignal(4.0, "SE", "marginal/direct"), TypicalDay("SE")])
def test_signal_from_its_spec_is_equal(signal):
    copy = grid_from_spec(signal.spec())
    assert copy.intensity(AT) == signal.intensity(AT)
    assert copy.spec() == signal.spec()


@pytest.mark.parametrize(
    ("path", "arguments", "expected"),
    [
        ("lightning_green.grid.trace.TraceSignal", {"path": "trace.csv"}, TraceSignal),
        ("lightning_green.grid.constant.ConstantSignal", {"intensity": 4.0}, ConstantSignal),
        ("lightning_green.grid.typical_day.TypicalDay", {"zone": "SE"}, TypicalDay),
    ],
)
def test_class_path_of_an_older_ledger_is_found(path, arguments, expected, tmp_path, monkeypatch):
    write_trace(tmp_path / "trace.csv", [1.0])
    monkeypatch.chdir(tmp_path)
    assert type(grid_from_spec({"class_path": path, "init_args": arguments})) is expected


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "should contain `class_path`"),
        (
            {"class_path": "lightning_green.grid.ConstantSignal", "init_args": 3},
            "should contain `class_path`",
        ),
        ({"class_path": "os.system", "init_args": {}}, "should name a subclass of"),
        ({"class_path": "lightning_green.grid.Nothing"}, "should name a subclass of"),
        ({"class_path": "no_such_module.Signal"}, "there is no module no_such_module"),
    ],
)
def test_invalid_spec_is_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        grid_from_spec(spec)
