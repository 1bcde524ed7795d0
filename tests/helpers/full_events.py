"""Events with a value in every field."""

from dataclasses import fields
from datetime import datetime, timezone

from lightning_green.energy.meter import Energy
from lightning_green.ledger import events
from lightning_green.ledger.events import Event, StateEvent, UnknownEvent
from lightning_green.ledger.measurement import Intensity, Measurement

AT = datetime(2024, 5, 1, tzinfo=timezone.utc)
VALUES = {
    "str": "text",
    "int": 3,
    "float": 0.5,
    "bool": True,
    "datetime": AT,
    "list[str]": ["a", "b"],
    "list[int]": [1, 2],
    "Mapping[str, Any]": {"a": {"b": [1]}},
}
KINDS = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, Event)]
KINDS = [kind for kind in KINDS if kind not in (Event, StateEvent, UnknownEvent)]
MEASURED = Measurement(
    {"gpu": Energy(3.5, "measured"), "cpu": Energy(1.0, "modelled")},
    Intensity(200.0, "average/lifecycle", "test", "DE", 210.0, AT.isoformat(), "measured"),
    pue=1.2,
    power=0.8,
    speed=0.9,
    data_wait_s=4.0,
)


def full(kind, **more):
    """Return an event with a value in every field."""
    common = {one.name for one in fields(Event)}
    own = {one.name: VALUES[str(one.type).removesuffix(" | None")] for one in fields(kind) if one.name not in common}
    header = {"seq": 7, "time_utc": AT.isoformat(), "mono_s": 1.5, "node": "n", "pid": 9, "attempt": 2}
    state = {"phase": "training", "state": "running", "measured": MEASURED, "global_step": 5, "fit": 1, "reason": "why"}
    return kind(**header, **state, **own, **more)
