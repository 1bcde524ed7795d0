"""Values of many types are restored equal from a file."""

import argparse
import collections
import datetime
import decimal
import fractions
import itertools
import pathlib
import random
import subprocess
import sys
import types
import uuid
import zoneinfo

import numpy as np
import pytest
import torch

from lightning_green.resume.load_check import check_loads
from lightning_green.resume.plain_data import TAG, to_plain
from lightning_green.resume.plain_forms import FORMS_BY_NAME, form_of
from tests.helpers.plain_values import Color, Config, Flags, Frozen, Level, Pair, Settings, Slotted, save_and_load

EQUAL = [
    None,
    True,
    3,
    2**300,
    0.1,
    "text",
    1j,
    b"",
    b"bytes",
    bytearray(b"b"),
    [1, (2, "x")],
    {1, 2},
    frozenset({"a"}),
    range(1, 9, 2),
    slice(1, None),
    {"a": {"b": [None]}},
    {(1, "x"): Color.RED, Color.BLUE: 2, pathlib.Path("x"): 3},
    {TAG: "enum", "value": 1},
    pathlib.Path("data"),
    pathlib.PureWindowsPath("c:/x"),
    Color.RED,
    Level.LOW,
    Flags.A | Flags.B,
    Config(5, pathlib.Path("data")),
    Frozen(Color.BLUE),
    Slotted(4),
    Pair(1, Color.RED),
    Settings(a=1, b=pathlib.Path("x")),
    datetime.datetime(2024, 5, 2, 1, 2, 3, 4),
    datetime.datetime(2024, 5, 2, tzinfo=datetime.timezone.utc),
    datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")),
    datetime.date(2024, 5, 2),
    datetime.time(1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
    datetime.timedelta(days=-1, microseconds=7),
    collections.deque([1, 2], maxlen=3),
    collections.OrderedDict(a=1, b=np.float64(2)),
    collections.Counter("hello"),
    collections.defaultdict(list, {1: [2]}),
    argparse.Namespace(lr=0.1, folder=pathlib.Path("x")),
    types.SimpleNamespace(a=1),
    decimal.Decimal("1.10"),
    fractions.Fraction(1, 3),
    uuid.UUID(int=5),
    np.float64(0.1),
    np.float32(1.5),
    np.int8(-3),
    np.bool_(True),
    np.str_("x"),
    np.datetime64("2024-05-02T01:02"),
    np.dtype("float16"),
    torch.float32,
    torch.device("cpu"),
    torch.Size([1, 2]),
]
ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.zeros((0, 3), np.int32),
    np.array(True),
    np.array(["a", "bc"]),
    np.array([1 + 2j], np.complex64),
    np.array([1.5], np.float16),
    np.asfortranarray(np.arange(6).reshape(2, 3)),
    np.array([(1, 2.5)], [("a", "i4"), ("b", "f8")]),
    np.array(["2024-05-02"], "datetime64[D]"),
]


@pytest.mark.parametrize("value", EQUAL, ids=repr)
def test_value_is_restored_equal(value, tmp_path):
    restored = save_and_load(value, tmp_path / "file")
    assert type(restored) is type(value)
    assert restored == value
    check_loads({"state": value})


@pytest.mark.parametrize("value", ARRAYS, ids=repr)
def test_arrays_are_restored_equal_and_writable(value, tmp_path):
    restored = save_and_load(value, tmp_path / "file")
    assert (restored.dtype, restored.shape) == (value.dtype, value.shape)
    assert np.array_equal(restored, value)
    assert restored.flags.writeable
    check_loads([value])


def _history(pandas):
    """Rows that are added one by one, as a logger does it."""
    table = pandas.DataFrame(columns=["loss"])
    table.index.name = "epoch"
    for epoch in (1, 2, 4):
        table.loc[epoch, "loss"] = 1 / epoch
    return table


TABLES = {
    "rows one by one": _history,
    "no rows": lambda pandas: pandas.DataFrame(columns=["a", "b"]),
    "numbers and strings": lambda pandas: pandas.DataFrame(
        {"a": [1.5, 2.0], 3: ["x", None], "c": [True, False]}, [7, 9]
    ),
    "times": lambda pandas: pandas.DataFrame({"t": pandas.to_datetime(["2024-05-02", "2024-05-03"])}),
    "equal names": lambda pandas: pandas.DataFrame([[1, 2.5]], columns=["a", "a"]),
}


@pytest.mark.parametrize("make", TABLES.values(), ids=TABLES)
def test_tables_are_restored_equal(make, tmp_path):
    pandas = pytest.importorskip("pandas")
    table = make(pandas)
    pandas.testing.assert_frame_equal(save_and_load(table, tmp_path / "file"), table)
    check_loads([table])


LOAD = """
import sys
import torch
from lightning_green.resume.plain_data import from_plain

saved = torch.load(sys.argv[1], weights_only=True)
assert "pandas" not in sys.modules
sys.modules.update(dict.fromkeys(sys.argv[2:]))  # such a module is not found
print(from_plain(saved)["a"].sum())
"""


def load_table(folder, *missing):
    """Load a table in a process that has not imported pandas."""
    pandas = pytest.importorskip("pandas")
    torch.save(to_plain(pandas.DataFrame({"a": [1, 2]})), folder / "file")
    words = [sys.executable, "-c", LOAD, str(folder / "file"), *missing]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def test_tables_are_restored_before_the_script_imports_pandas(tmp_path):
    assert load_table(tmp_path).stdout == "3\n"


def test_table_without_an_installed_pandas_is_an_error_of_the_state(tmp_path):
    assert (
        "RuntimeError: a `DataFrame` in the state cannot be restored: Module" in load_table(tmp_path, "pandas").stderr
    )


def test_tables_of_other_kinds_have_no_form():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"a": [1, 2]})
    assert form_of(table.set_index(pandas.MultiIndex.from_tuples([(1, 2), (1, 3)]))) is None
    assert form_of(table.astype("category")) is None
    assert form_of(table.set_index(pandas.to_datetime(["2024-05-02", "2024-05-03"]))) is None


@pytest.mark.parametrize("draw", ["numpy", "legacy numpy", "python", "torch"])
def test_restored_random_generator_continues(draw, tmp_path):
    make = {
        "numpy": lambda: np.random.default_rng(1),
        "legacy numpy": lambda: np.random.RandomState(1),
        "python": lambda: random.Random(1),
        "torch": lambda: torch.Generator().manual_seed(1),
    }[draw]

    def numbers(generator):
        return [float(torch.rand((), generator=generator)) if draw == "torch" else generator.random() for _ in range(3)]

    generator = make()
    numbers(generator)
    restored = save_and_load(generator, tmp_path / "file")
    assert numbers(restored) == numbers(generator)
    check_loads([generator])


def test_each_form_is_found_by_the_name_that_is_saved():
    assert {form_of(value).name for value in (1j, np.int8(1), np.dtype("int8"), np.zeros(1), uuid.UUID(int=1))} <= set(
        FORMS_BY_NAME
    )
    assert form_of([1]) is form_of(object()) is form_of(np.array([object()])) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: iter([1, 2, 3, 4]),
        lambda: iter((1, "x", None)),
        lambda: iter(range(5, 50, 5)),
        lambda: iter(range(2**70, 2**70 + 4)),
        itertools.count,
        lambda: itertools.count(0.5, 0.25),
        lambda: itertools.count(-3, 2),
    ],
)
@pytest.mark.parametrize("taken", [0, 2, 3])
def test_restored_iterator_continues(make, taken, tmp_path):
    value = make()
    for _ in range(taken):
        next(value)
    restored = save_and_load(value, tmp_path / "value.pt")
    assert type(restored) is type(value)
    assert list(itertools.islice(restored, 6)) == list(itertools.islice(value, 6))


def test_saving_does_not_advance_an_iterator(tmp_path):
    value = iter([1, 2])
    save_and_load(value, tmp_path / "value.pt")
    assert list(value) == [1, 2]


def test_count_of_other_numbers_has_no_form():
    assert form_of(itertools.count(fractions.Fraction(1, 2))) is None
