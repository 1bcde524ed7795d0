"""The first difference between the trace of an uninterrupted run and that of an interrupted one."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Record = Mapping[str, Any]
Trace = Sequence[Record]

# In the order of cause and effect within a batch.
FIELDS = ("samples", "random", "settings", "loss", "weights", "metrics", "steps", "best")
_NAMES = {
    "samples": "the samples",
    "random": "the random state",
    "settings": "a setting",
    "loss": "the output of the step",
    "weights": "the weights",
    "metrics": "a logged metric",
    "steps": "the number of steps",
    "best": "the best score of a checkpoint callback",
}
_VALIDATION = "validation"


@dataclass(frozen=True)
class Difference:
    """The first difference between two traces.

    Args:
        where: Position in the training, for people.
        after: The stop before it, for people; empty between two uninterrupted runs.
        what: Field of the trace: one of ``FIELDS``; or ``"missing"``, ``"additional"``, ``"not restored"``,
            ``"not saved"`` or ``"failed"``.
        name: Name within the field, such as that of a metric; empty for a field without names.
        expected: Value in the uninterrupted run.
        found: Value in the other run.
        attributes: Attributes that differed when the batch began: path, expected text and found text.

    """

    where: str
    after: str
    what: str
    name: str = ""
    expected: str = ""
    found: str = ""
    attributes: tuple[tuple[str, str, str], ...] = field(default=())

    def describe(self) -> str:
        """Return the difference in one sentence, without the final period."""
        if self.what == "missing":
            return f"the other run never reached {self.where}"
        if self.what == "additional":
            return f"only the other run reached {self.where}"
        named = f" `{self.name}`" if self.name else ""
        values = f": {_short(self.expected)}, then {_short(self.found)}" if self.name and self.expected else ""
        return f"{_NAMES[self.what]}{named} of {self.where}{values}"


def first_difference(
    reference: Trace, other: Trace, ignored: Iterable[tuple[str, str]] = (), unstable: Iterable[str] = ()
) -> Difference | None:
    """Return the first difference of a trace from that of an uninterrupted run; None if there is none.

    A batch that a killed process trained and the next one repeated has to be equal both times.

    Args:
        reference: Trace of the uninterrupted run.
        other: Trace of the processes of the interrupted run.
        ignored: Pairs of a field and a name that differ between any two runs, such as a logged time.
        unstable: Paths of attributes that differ between any two runs.

    """
    expected = {_key(record): record for record in reference if record["kind"] == "point"}
    left_out, unstable = set(ignored), set(unstable)
    after, reached, begun = "", set(), None
    for record in other:
        if record["kind"] == "stopped":
            after = record["stop"]
        if record["kind"] != "point":
            continue
        key = _key(record)
        reached.add(key)
        begun = record if "attributes" in record else begun
        if key not in expected:
            return Difference(_where(record), after, "additional")
        for what, name, one, two in _fields_that_differ(expected[key], record):
            if (what, name) not in left_out:
                attributes = () if begun is None else _attributes_that_differ(expected[_key(begun)], begun, unstable)
                return Difference(_where(record), after, what, name, one, two, attributes)
    for key, record in expected.items():
        if key not in reached:
            return Difference(_where(record), after, "missing")
    return None


def varying_fields(reference: Trace, other: Trace) -> set[tuple[str, str]]:
    """Return the fields that differ anywhere between two uninterrupted runs, as pairs of a field and a name."""
    expected = {_key(record): record for record in reference if record["kind"] == "point"}
    return {
        (what, name)
        for record in other
        if record["kind"] == "point" and _key(record) in expected
        for what, name, _, _ in _fields_that_differ(expected[_key(record)], record)
    }


def varying_attributes(reference: Trace, other: Trace) -> set[str]:
    """Return the paths of the attributes that differ anywhere between two uninterrupted runs."""
    expected = {_key(record): record.get("attributes", {}) for record in reference if record["kind"] == "point"}
    found: set[str] = set()
    for record in other:
        if record["kind"] == "point":
            one, two = expected.get(_key(record), {}), record.get("attributes", {})
            found |= {path for path in {*one, *two} if one.get(path) != two.get(path)}
    return found


def _key(record: Record) -> tuple[Any, ...]:
    return (record["run"], record["fit"], *record["at"])


def _fields_that_differ(expected: Record, record: Record) -> list[tuple[str, str, str, str]]:
    """Return the differing fields in order: field, name, expected and found."""
    found = []
    for what in FIELDS:
        one, two = expected.get(what), record.get(what)
        if one == two:
            continue
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            names = [name for name in {**one, **two} if one.get(name) != two.get(name)]
            found += [(what, name, _text(one.get(name)), _text(two.get(name))) for name in names]
        else:
            found.append((what, "", _text(one), _text(two)))
    return found


def _attributes_that_differ(
    expected: Record, record: Record, unstable: Container[str]
) -> tuple[tuple[str, str, str], ...]:
    """Return the attributes that differ at the beginning of a batch: path, expected and found."""
    one, two = expected["attributes"], record["attributes"]
    names = [path for path in {**one, **two} if one.get(path) != two.get(path) and path not in unstable]
    return tuple((path, _text(one.get(path)), _text(two.get(path))) for path in names)


def _where(record: Record) -> str:
    at, fit = record["at"], f" of fit {record['fit']}" if record["fit"] else ""
    if at[-1] == "end":
        return f"the end{fit}"
    if at[-1] == "epoch end":
        return f"the end of epoch {at[0]}{fit}"
    if at[-1] == _VALIDATION:
        return f"validation batch {at[2]} after training batch {at[0]}{fit}"
    return f"batch {at[1]} of epoch {at[0]}{fit}"


def _text(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, str) and value.startswith(("0x", "-0x")):  # a metric, from `float.hex`
        return f"{float.fromhex(value):.6g}"
    return str(value)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
