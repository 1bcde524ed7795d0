"""The types that plain data represents by simpler values: dates, paths, arrays, iterators and others."""

from __future__ import annotations

import argparse
import ast
import collections
import datetime
import decimal
import fractions
import itertools
import pathlib
import random
import re
import sys
import types
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch


class Form(NamedTuple):
    """A representation of the objects of one type.

    Attributes:
        name: Name of the form in the saved data.
        encode: Returns a simpler value for an object; it is encoded in turn.
        decode: Returns the object for this value.
        owns_tensors: Whether tensors in the value depend on its other fields, such as the bytes of an array on a shape.

    """

    name: str
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    owns_tensors: bool = False


def _array(value: Any) -> list[Any]:
    array = np.asarray(value)
    content = torch.from_numpy(np.frombuffer(array.tobytes(), np.uint8).copy()) if array.size else torch.empty(0)
    return [np.lib.format.dtype_to_descr(array.dtype), list(array.shape), content]


def _from_array(saved: Any) -> Any:
    descr, shape, content = saved
    dtype = np.lib.format.descr_to_dtype(descr)
    if dtype.hasobject:
        raise TypeError("an array of objects")
    data = content.to(torch.uint8).numpy().tobytes()
    return np.frombuffer(data, dtype).reshape(shape).copy() if data else np.empty(shape, dtype)


def _numpy_generator(saved: Any) -> np.random.Generator:
    name, state = saved
    kinds = {"PCG64": np.random.PCG64, "PCG64DXSM": np.random.PCG64DXSM, "MT19937": np.random.MT19937}
    kinds |= {"Philox": np.random.Philox, "SFC64": np.random.SFC64}
    generator = np.random.Generator(kinds[name]())
    generator.bit_generator.state = state
    return generator


def _numpy_random_state(state: Any) -> np.random.RandomState:
    generator = np.random.RandomState()
    generator.set_state(state)
    return generator


def _python_generator(saved: Any) -> random.Random:
    version, numbers, gauss = saved
    generator = random.Random()  # noqa: S311 - its state is restored
    generator.setstate((version, tuple(numbers.tolist()), gauss))
    return generator


def _python_state(value: random.Random) -> list[Any]:
    version, numbers, gauss = value.getstate()
    return [version, torch.tensor(numbers, dtype=torch.int64), gauss]


def _torch_generator(saved: Any) -> torch.Generator:
    generator = torch.Generator(saved[0])
    generator.set_state(saved[1])
    return generator


def _remaining(iterator: Any) -> Any:
    """Return the list, the tuple or the range of the items that an iterator has not yielded."""
    _, (items,), *index = iterator.__reduce__()
    return items[index[0] :] if index else items


def _count(value: itertools.count[Any]) -> list[Any]:
    numbers = ast.literal_eval(repr(value).removeprefix("count"))  # it has no other public state
    return list(numbers) if isinstance(numbers, tuple) else [numbers]


def _datetime(saved: Any) -> datetime.datetime:
    text, fold, zone = saved
    return datetime.datetime.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _time(saved: Any) -> datetime.time:
    text, fold, zone = saved
    return datetime.time.fromisoformat(text).replace(fold=fold, tzinfo=zone)


def _iso_fold_zone(value: Any) -> list[Any]:
    return [value.replace(tzinfo=None).isoformat(), value.fold, value.tzinfo]


def _column(values: Any) -> list[Any]:
    """Return the kind, the name and the values of an index or of one column of a table."""
    content = values.to_numpy()
    plain = values.dtype.kind in _ARRAY_KINDS and isinstance(values.dtype, np.dtype)
    return [str(values.dtype), values.name, content if plain else values.tolist()]


def _from_column(saved: Any, kind: Any) -> Any:
    dtype, name, content = saved
    return kind(content, dtype=dtype, name=name)


def _table(value: Any) -> list[Any]:
    columns = [value.iloc[:, number] for number in range(value.shape[1])]
    return [_column(value.index), _column(value.columns), [_column(one) for one in columns]]


def _from_table(saved: Any) -> Any:
    import pandas  # a script may import it in a hook, after its state is loaded

    index, names, columns = saved
    frame = pandas.DataFrame({n: _from_column(one, pandas.Series) for n, one in enumerate(columns)})
    frame.index = _from_column(index, pandas.Index)
    frame.columns = _from_column(names, pandas.Index)
    return frame


def _is_plain_table(value: Any) -> bool:
    """Return whether an object is a table of pandas with one index, of numbers, times, strings and objects."""
    pandas = sys.modules.get("pandas")
    if pandas is None or type(value) is not getattr(pandas, "DataFrame", None):
        return False
    dtypes = [value.index.dtype, value.columns.dtype, *value.dtypes]
    one_index = type(value.index) in (pandas.Index, pandas.RangeIndex) and value.columns.nlevels == 1
    return one_index and all(
        dtype.kind in f"{_ARRAY_KINDS}O" and (isinstance(dtype, np.dtype) or str(dtype) in ("str", "string"))
        for dtype in dtypes
    )


_ARRAY_KINDS = "biufMm"
_FORMS: dict[type, Form] = {
    complex: Form("complex", lambda v: [v.real, v.imag], lambda s: complex(*s)),
    bytes: Form("bytes", bytes.hex, bytes.fromhex),
    bytearray: Form("bytearray", bytearray.hex, bytearray.fromhex),
    set: Form("set", list, set),
    frozenset: Form("frozenset", list, frozenset),
    range: Form("range", lambda v: [v.start, v.stop, v.step], lambda s: range(*s)),
    slice: Form("slice", lambda v: [v.start, v.stop, v.step], lambda s: slice(*s)),
    collections.deque: Form("deque", lambda v: [list(v), v.maxlen], lambda s: collections.deque(*s)),
    collections.OrderedDict: Form("OrderedDict", lambda v: [list(v.items())], lambda s: collections.OrderedDict(*s)),
    collections.Counter: Form("Counter", dict, collections.Counter),
    argparse.Namespace: Form("Namespace", vars, lambda s: argparse.Namespace(**s)),
    types.SimpleNamespace: Form("SimpleNamespace", vars, lambda s: types.SimpleNamespace(**s)),
    types.MappingProxyType: Form("mappingproxy", dict, types.MappingProxyType),
    datetime.date: Form("date", str, datetime.date.fromisoformat),
    datetime.datetime: Form("datetime", _iso_fold_zone, _datetime),
    datetime.time: Form("time", _iso_fold_zone, _time),
    datetime.timedelta: Form(
        "timedelta", lambda v: [v.days, v.seconds, v.microseconds], lambda s: datetime.timedelta(*s)
    ),
    datetime.timezone: Form("timezone", lambda v: [v.utcoffset(None), v.tzname(None)], lambda s: datetime.timezone(*s)),
    zoneinfo.ZoneInfo: Form("ZoneInfo", lambda v: v.key, zoneinfo.ZoneInfo),
    decimal.Decimal: Form("Decimal", str, decimal.Decimal),
    fractions.Fraction: Form("Fraction", lambda v: [v.numerator, v.denominator], lambda s: fractions.Fraction(*s)),
    uuid.UUID: Form("UUID", str, uuid.UUID),
    np.ndarray: Form("ndarray", _array, _from_array, owns_tensors=True),
    np.random.Generator: Form(
        "numpy.Generator", lambda v: [type(v.bit_generator).__name__, v.bit_generator.state], _numpy_generator
    ),
    np.random.RandomState: Form("numpy.RandomState", lambda v: v.get_state(legacy=False), _numpy_random_state),
    random.Random: Form("random.Random", _python_state, _python_generator, owns_tensors=True),
    torch.Generator: Form(
        "torch.Generator", lambda v: [str(v.device), v.get_state()], _torch_generator, owns_tensors=True
    ),
    itertools.count: Form("count", _count, lambda s: itertools.count(*s)),
    **{
        kind: Form(kind.__name__, _remaining, iter)
        for kind in (type(iter([])), type(iter(())), type(iter(range(1))), type(iter(range(2**70))))
    },
    **{
        kind: Form(kind.__name__, str, kind)
        for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))
    },
}
_COUNT = re.compile(r"count\([-+.,e \d]+\)")  # and not of fractions, for example
_NUMPY_SCALAR = Form("numpy scalar", _array, lambda s: _from_array(s)[()], owns_tensors=True)
_NUMPY_DTYPE = Form("numpy dtype", np.lib.format.dtype_to_descr, np.lib.format.descr_to_dtype)
_TABLE = Form("DataFrame", _table, _from_table)

FORMS_BY_NAME = {form.name: form for form in (*_FORMS.values(), _NUMPY_SCALAR, _NUMPY_DTYPE, _TABLE)}


def form_of(value: Any) -> Form | None:
    """Return the form of an object; None if its type has none."""
    if isinstance(value, np.generic):
        return None if value.dtype.hasobject else _NUMPY_SCALAR
    if isinstance(value, np.dtype):
        return None if value.hasobject else _NUMPY_DTYPE
    if isinstance(value, np.ndarray) and value.dtype.hasobject:
        return None
    if type(value) is itertools.count and not _COUNT.fullmatch(repr(value)):
        return None
    return _FORMS.get(type(value)) or (_TABLE if _is_plain_table(value) else None)
