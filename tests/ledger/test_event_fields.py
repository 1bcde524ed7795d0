"""The own fields of an event and their codecs."""

from dataclasses import dataclass
from datetime import datetime, timezone

import pytest

from lightning_green.ledger.event_fields import own_fields
from lightning_green.ledger.events import Event, Failed, Paused, Sample

AT = datetime(2024, 5, 1, tzinfo=timezone.utc)


def test_only_the_fields_that_the_class_adds_are_returned():
    assert list(own_fields(Failed, Event)) == ["traceback", "thread"]
    assert own_fields(Sample, Event) == {}


def test_optional_time_is_written_as_text_and_read_back():
    decode, encode = own_fields(Paused, Event)["until"]
    assert encode(AT) == AT.isoformat()
    assert decode(encode(AT)) == AT


def test_number_in_another_json_type_is_converted_when_read():
    decode, _ = own_fields(Paused, Event)["saving"]
    value = decode(1)
    assert (value, type(value)) == (1.0, float)


def test_type_without_a_codec_raises():
    @dataclass(frozen=True, kw_only=True)
    class Odd(Event):
        name = "odd"
        value: "set[int]"

    with pytest.raises(KeyError, match=r"set\[int\]"):
        own_fields(Odd, Event)
