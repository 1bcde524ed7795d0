"""Descriptions of a training by content, which decide whether a paused training is continued by the same script.

Every description consists of the types that JSON has, so that it can be kept in ``run.json``. Two processes describe
equal settings equally: time stamps, random identifiers, temporary paths and memory addresses are replaced.
"""

from __future__ import annotations

import collections
import dataclasses
import datetime
import decimal
import enum
import fractions
import functools
import hashlib
import json
import math
import os
import re
import sys
import tempfile
import time
import types
import uuid
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch.distributed.tensor import DTensor
from torch.nn.parameter import is_lazy
from torch.utils.data import IterableDataset

from lightning_green.runtime._lightning import train_loaders
from lightning_green.runtime.shards import is_sharded

_TIME, _IDENTIFIER, _TEMPORARY_PATH, _OMITTED = "<time>", "<id>", "<temporary path>", "<...>"

_MAX_DEPTH = 12
_MAX_VALUES = 1_000_000  # described values in total, against structures that share their parts many times
_MAX_ELEMENTS = 64  # longer sequences are described by a digest
_MAX_ENTRIES = 1000  # larger mappings are described by a digest
_MAX_DESCRIBED_ELEMENTS = 100_000  # the digest of a longer sequence is the digest of a sample
_MAX_CHARACTERS = 200
_MAX_HASHED_ELEMENTS = 10_000_000  # the digest of a larger tensor is the digest of a sample
_SAMPLE = 1_000_000
_MAX_ATTRIBUTE_ELEMENTS = 32
_MAX_SHOWN = 80

_SECRET = re.compile(r"key|token|secret|passw|credential", re.IGNORECASE)

_RECENT_SECONDS = 400 * 86400
_EPOCH_UNITS = (1.0, 1e3, 1e6, 1e9)  # seconds, ms, us, ns

_LIMITS = (
    "max_epochs",
    "min_epochs",
    "max_steps",
    "min_steps",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "gradient_clip_algorithm",
    "precision",
    "limit_train_batches",
    "limit_val_batches",
    "val_check_interval",
    "check_val_every_n_epoch",
    "overfit_batches",
)
_SCHEDULER_STATE = {
    "optimizer",
    "last_epoch",
    "best",
    "num_bad_epochs",
    "cooldown_counter",
    "verbose",
    "T_cur",
}
_HIDDEN_SCHEDULER_SETTINGS = ("_milestones", "_schedule_phases")


def _any_of(*patterns: str) -> str:
    return "(?:" + "|".join(patterns) + ")"


_YEAR, _MONTH, _DAY = r"(?:19|20)\d\d", r"(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])"
_DATE = _any_of(rf"{_YEAR}([-/._]){_MONTH}\1{_DAY}", rf"{_DAY}([-/._]){_DAY}\2{_YEAR}")
_HOUR, _MINUTE = r"(?:[01]\d|2[0-3])", r"[0-5]\d"
_ZONE = r"(?:\s?(?:Z\b|UTC\b|[+-]\d\d:?\d\d(?!\d)))?"
_FRACTION = r"(?:[.,]\d{1,9}|[_-]\d{6}(?!\d))?"
_COLON_TIME = rf"{_HOUR}:{_MINUTE}:{_MINUTE}{_FRACTION}{_ZONE}"
_SEPARATED_TIME = rf"{_HOUR}[:.h_-]{_MINUTE}(?:[:.m_-]{_MINUTE}s?)?{_FRACTION}{_ZONE}"
_COMPACT_TIME = rf"{_HOUR}{_MINUTE}(?:{_MINUTE})?{_FRACTION}{_ZONE}"
_ANY_TIME = _any_of(_SEPARATED_TIME, _COMPACT_TIME)
_MONTH_NAME = _any_of(
    "Jan(?:uary)?", "Feb(?:ruary)?", "Mar(?:ch)?", "Apr(?:il)?", "May", "June?", "July?", "Aug(?:ust)?",
    "Sept?(?:ember)?", "Oct(?:ober)?", "Nov(?:ember)?", "Dec(?:ember)?",
)  # fmt: skip
_WEEKDAY = r"(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? )?"
_TIME_PATTERN = re.compile(
    "|".join(
        (
            # 2026-11-26, 2026/11/26, 26.11.2026, each with a time or without
            rf"(?<!\d){_DATE}(?:(?:[T_/.-]| at |, | ){_ANY_TIME})?(?!\d)",
            # 20261126_124459, 20261126124459, 261126_124459
            rf"(?<![\d.]){_YEAR}{_MONTH}{_DAY}[T_. -]?{_ANY_TIME}(?!\d)",
            rf"(?<![\d.])\d\d{_MONTH}{_DAY}[T_-]{_HOUR}{_MINUTE}{_MINUTE}(?!\d)",
            # Nov26_12-44-59, Thu Nov 26 12:44:59 2026
            rf"(?<![A-Za-z]){_WEEKDAY}{_MONTH_NAME}[ _.-]{{0,2}}\d{{1,2}}(?:,? {_YEAR})?[ _T-]{_SEPARATED_TIME}"
            rf"(?: {_YEAR})?(?!\d)",
            # 26 Nov 2026, 26-Nov-2026 12:44
            rf"(?<![\dA-Za-z]){_WEEKDAY}\d{{1,2}}[ _-]?{_MONTH_NAME}[ _-]?{_YEAR}(?:[ _T-]{_SEPARATED_TIME})?(?!\d)",
            rf"(?<![\d:.]){_COLON_TIME}(?![\d:])",
            # 20261126, 1795697099, 1795697099.123: only if recent
            rf"(?<![\d.])(?P<date>{_YEAR}{_MONTH}{_DAY})(?!\d)",
            r"(?<![\d.])(?P<epoch>\d{10}(?:\.\d+)?|\d{13}|\d{16}|\d{19})(?!\d)",
        )
    )
)
_ADDRESS_PATTERN = re.compile(r" at 0x[0-9a-fA-F]+")
_IDENTIFIER_PATTERN = re.compile(
    r"(?<![0-9a-z])"
    + _any_of(
        r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
        r"(?:0x)?(?=\d*[a-f])(?=[a-f]*\d)[0-9a-f]{8,}",
    )
    + r"(?![0-9a-z])",
    re.IGNORECASE,
)

_FUNCTION_TYPES = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.MethodWrapperType,
    types.ClassMethodDescriptorType,
    functools._lru_cache_wrapper,
    np.ufunc,
)


def describe(value: Any) -> Any:
    """Return a description of a value by its content, made of the types that JSON has.

    Equal settings have equal descriptions in every process. The description is what ``json.loads(json.dumps(...))``
    returns of it. Objects of unknown classes are described by their class only, and no method of theirs is called.

    Args:
        value: Any object.

    Returns:
        None, a bool, an int, a finite float, a string, or lists and dicts of them.

    Example::

        >>> describe({"lr": np.float64(0.1), "betas": (0.9, 0.999), "loss": torch.nn.CrossEntropyLoss()})
        {'lr': 0.1, 'betas': [0.9, 0.999], 'loss': 'module torch.nn.modules.loss.CrossEntropyLoss'}
        >>> describe(["resnet50", "runs/Nov26_12-44-59", datetime.datetime.now()])
        ['resnet50', 'runs/<time>', '<time>']

    """
    return _describe(value, _Walk())


def fit_fingerprint(trainer: pl.Trainer, first_fit_of_module: bool = True) -> dict[str, Any]:
    """Return the module, its settings, the seed and the Trainer's limits, as they are when ``fit`` begins.

    Args:
        trainer: The Trainer, with the module attached, before any ``setup`` hook.
        first_fit_of_module: Whether no earlier fit of this process trained the module. A fit changes attributes of
            the module, so they are included for the first one only.

    Returns:
        A dict that JSON can represent, with the keys ``module``, ``parameters``, ``hparams``, ``data``, ``seed``,
        ``limits`` and, for the first fit, ``attributes``.

    """
    module, data = trainer.lightning_module, getattr(trainer, "datamodule", None)
    fingerprint: dict[str, Any] = {
        "module": _qualified_name(type(module)),
        "parameters": _shapes(module, is_sharded(trainer)),
        "hparams": _hparams(module),
        "data": {
            "class": None if data is None else _qualified_name(type(data)),
            "hparams": {} if data is None else _hparams(data),
        },
        "seed": _seed(),
        "limits": _limits(trainer),
    }
    if first_fit_of_module:
        fingerprint["attributes"] = {
            _text(name): _masked(name, describe(value))
            for name, value in vars(module).items()
            if not name.startswith("_") and name not in _lightning_attributes() and _is_plain(value)
        }
    return fingerprint


def optimizer_fingerprint(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the settings of the optimizers and learning rate schedulers, and the number of processes.

    Args:
        trainer: The Trainer, from ``on_fit_start`` on and before the optimizer states are restored.

    Returns:
        A dict that JSON can represent, with the keys ``optimizers``, ``schedulers`` and ``world_size``.

    """
    return {
        "optimizers": [
            {
                "class": _qualified_name(type(optimizer)),
                "groups": [_group(group) for group in _attribute(optimizer, "param_groups") or []],
            }
            for optimizer in trainer.optimizers
        ],
        "schedulers": [
            {
                **_scheduler(config.scheduler),
                "interval": describe(config.interval),
                "frequency": describe(config.frequency),
                "monitor": describe(config.monitor),
            }
            for config in trainer.lr_scheduler_configs
        ],
        "world_size": trainer.world_size,
    }


def data_fingerprint(trainer: pl.Trainer) -> dict[str, Any]:
    """Return the sizes of the training data.

    Args:
        trainer: The Trainer, from ``on_train_start`` on.

    Returns:
        A dict that JSON can represent: ``training_batches`` of an epoch (``"unknown"`` without a length), and for each
        training loader its batch size (``batch_sizes``, None without one) and the length of its dataset (``samples``,
        ``"unknown"`` without one), and which part of a dataset it is (``subsets``, for ``torch.utils.data.Subset``).

    """
    batches = trainer.num_training_batches
    combined = train_loaders(trainer)
    loaders = [] if combined is None else list(combined.flattened)
    return {
        "training_batches": int(batches) if math.isfinite(batches) else "unknown",
        "batch_sizes": [_batch_size(loader) for loader in loaders],
        "samples": [_samples(loader) for loader in loaders],
        "subsets": [describe(getattr(getattr(loader, "dataset", None), "indices", None)) for loader in loaders],
    }


def differences(saved: dict[str, Any], current: dict[str, Any]) -> list[str]:
    """Return the settings in which two fingerprints differ, as sentences for people.

    Args:
        saved: The fingerprint that was kept when the training started.
        current: The fingerprint of the training now. Only keys that both contain are compared.

    Returns:
        A sentence for each difference, sorted by key; empty if there is none.

    Example::

        >>> differences({"hparams": {"lr": 0.01, "layers": 2}}, {"hparams": {"lr": 0.02}, "seed": 1})
        ['hparams.layers: 2 then, absent now', 'hparams.lr: 0.01 then, 0.02 now']

    """
    return [
        sentence for key in sorted(saved.keys() & current.keys()) for sentence in _compare(key, saved, current, key)
    ]


class _Walk:
    """The containers around the value that is described, and how many values may still be described."""

    def __init__(self) -> None:
        self.around: list[int] = []
        self.values_left = _MAX_VALUES


def _describe(value: Any, walk: _Walk) -> Any:
    kind = type(value)  # not `value.__class__`, which a proxy may compute
    walk.values_left -= 1
    if walk.values_left < 0:
        return _OMITTED
    try:
        for types_, described in _SIMPLE:
            if issubclass(kind, types_):
                return described(value)
        entries = _container(value, kind)
        if entries is None:
            return _object(kind)
        if id(value) in walk.around or len(walk.around) >= _MAX_DEPTH:
            return _OMITTED
        walk.around.append(id(value))
        try:
            if isinstance(entries, dict):
                return _entries(entries, kind, walk)
            return _elements(entries, kind, walk)
        finally:
            walk.around.pop()
    except Exception:  # noqa: BLE001 - a broken object in the settings must not stop a training
        return _object(kind)


def _container(value: Any, kind: type) -> dict[Any, Any] | list[Any] | None:
    """Return the content of a container; None for any other object."""
    if issubclass(kind, functools.partial):
        content: dict[Any, Any] = {"partial": value.func, "args": value.args, "keywords": value.keywords}
        return {name: part for name, part in content.items() if part}
    if issubclass(kind, (set, frozenset)):
        return list(value)
    if issubclass(kind, tuple):
        elements = list(tuple.__iter__(value))
        names = getattr(kind, "_fields", None)
        return elements if names is None else dict(zip(names, elements, strict=True))
    if issubclass(kind, list):
        return list(list.__iter__(value))
    if issubclass(kind, collections.deque):
        return list(value)
    if issubclass(kind, dict):
        return dict.copy(value)  # does not hash the keys again
    if kind.__module__.startswith("omegaconf."):
        return _omegaconf(value)
    if issubclass(kind, Mapping):
        return dict(value.items())
    if issubclass(kind, (Namespace, types.SimpleNamespace)):
        return dict(vars(value))
    if dataclasses.is_dataclass(kind):
        return _fields(value, (field.name for field in dataclasses.fields(kind)))
    if hasattr(kind, "__attrs_attrs__"):
        return _fields(value, (field.name for field in kind.__attrs_attrs__))
    if callable(getattr(kind, "model_dump", None)):  # pydantic
        dumped = value.model_dump()
        return dumped if isinstance(dumped, dict) else None
    return None


def _omegaconf(value: Any) -> dict[Any, Any] | list[Any] | None:
    """Return the content of an OmegaConf container, with the interpolations resolved where that is possible."""
    to_container = sys.modules["omegaconf"].OmegaConf.to_container
    try:
        content = to_container(value, resolve=True)
    except Exception:  # noqa: BLE001 - an interpolation may refer to a missing value or call any resolver
        content = to_container(value, resolve=False)
    return content if isinstance(content, (dict, list)) else None


def _fields(value: Any, names: Iterable[str]) -> dict[Any, Any]:
    """Return the fields of a dataclass, from its ``__dict__`` or its slots."""
    own = getattr(value, "__dict__", {})
    return {name: own[name] if name in own else getattr(value, name) for name in names if hasattr(value, name)}


def _entries(entries: dict[Any, Any], kind: type, walk: _Walk) -> dict[str, Any] | str:
    described: dict[str, Any] = {}
    for key, value in entries.items():
        key_description = _describe(key, walk)
        name = unique = key_description if isinstance(key_description, str) else str(key_description)
        number = 1
        while unique in described:  # 1 and "1", or two time stamps
            number += 1
            unique = f"{name} ({number})"
        described[unique] = _describe(value, walk)
    if len(described) > _MAX_ENTRIES:
        return f"{kind.__name__} of {len(described)}, {_json_digest(described)}"
    return described


def _elements(elements: list[Any], kind: type, walk: _Walk) -> list[Any] | str:
    size, unordered = len(elements), issubclass(kind, (set, frozenset))
    if size > _MAX_DESCRIBED_ELEMENTS:
        if unordered:  # no sample of it is the same in every process
            return f"{kind.__name__} of {size}"
        elements = elements[:: math.ceil(size / _MAX_DESCRIBED_ELEMENTS)]
    described = [_describe(element, walk) for element in elements]
    if unordered:
        described.sort(key=lambda one: json.dumps(one, sort_keys=True))
    return f"{kind.__name__} of {size}, {_json_digest(described)}" if size > _MAX_ELEMENTS else described


def _object(kind: type) -> str:
    return f"object {_qualified_name(kind)}"


def _qualified_name(named: Any) -> str:
    """Return module and qualified name of a class or function; a spawned process has another name for the script."""
    try:
        name = named.__qualname__ if isinstance(getattr(named, "__qualname__", None), str) else named.__name__
        module = getattr(named, "__module__", None)
        if not isinstance(module, str):
            return str(name)
        return f"{'__main__' if module == '__mp_main__' else module}.{name}"
    except Exception:  # noqa: BLE001 - a metaclass may compute these attributes
        return "unknown"


def _function(value: Any) -> str:
    name = _qualified_name(value)
    return "lambda" if name.endswith("<lambda>") else f"function {name}"


def _integer(value: Any) -> int | str:
    number = int.__index__(value)
    if number.bit_length() > 256:  # JSON has no limit, Python's conversion to a string has
        size = number.bit_length()
        return f"int of {size} bits, {_digest(number.to_bytes(size // 8 + 1, 'little', signed=True))}"
    return _TIME if _is_recent(number) else number


def _real(value: Any) -> float | str:
    number = float.__float__(value)
    if not math.isfinite(number):
        return str(number)
    return _TIME if _is_recent(number) or _is_recent_on_timer(number) else number


def _is_recent(number: float) -> bool:
    """Return whether a number is an epoch time, in seconds down to nanoseconds, within 400 days of now."""
    now = time.time()
    return any(abs(number / unit - now) <= _RECENT_SECONDS for unit in _EPOCH_UNITS)


def _is_recent_on_timer(number: float) -> bool:
    """Return whether a number was read in the last hour from ``time.perf_counter`` or ``time.monotonic``.

    Timer values have nine decimals, and settings have few.
    """
    return number > 60 and 0 <= time.monotonic() - number <= 3600 and round(number, 4) != number


def _text(value: Any) -> str:
    """Return a string without time stamps, random identifiers, temporary paths and addresses, cut if it is long."""
    text: str = str.__str__(value)
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")  # no lone surrogates in a file
    if len(text) <= _MAX_VALUES:
        text = _normalize(text)
    if len(text) > _MAX_CHARACTERS:
        return f"{text[:60]}... ({len(text)} characters, {_digest(text.encode())})"
    return text


def _normalize(text: str) -> str:
    if os.sep in text:
        for pattern in _temporary_patterns():
            text = pattern.sub(_TEMPORARY_PATH, text)
    if not any(character.isdigit() for character in text):
        return text
    text = _ADDRESS_PATTERN.sub("", text)
    text = _IDENTIFIER_PATTERN.sub(_IDENTIFIER, text)
    return _TIME_PATTERN.sub(_replace_time, text)


def _replace_time(match: re.Match[str]) -> str:
    if match["date"]:
        try:
            date = datetime.datetime.strptime(match["date"], "%Y%m%d").replace(tzinfo=datetime.timezone.utc)
        except ValueError:  # February 30
            return match[0]
        return _TIME if _is_recent(date.timestamp()) else match[0]
    if match["epoch"]:
        return _TIME if _is_recent(float(match["epoch"])) else match[0]
    return _TIME


def _temporary_patterns() -> list[re.Pattern[str]]:
    try:
        directory = tempfile.gettempdir()
    except OSError:  # no directory is writable
        directory = "/tmp"  # noqa: S108 - nothing is written there
    return _patterns_below(directory, os.getcwd())


@functools.lru_cache
def _patterns_below(directory: str, working_directory: str) -> list[re.Pattern[str]]:
    names = {directory, os.path.realpath(directory), "/tmp", "/var/tmp"}  # noqa: S108 - nothing is written there
    names -= {working_directory, os.path.realpath(working_directory), "/", "."}  # Python's last resort
    return [
        re.compile(rf"(?<![\w./-]){re.escape(name)}(?:/[^\s'\",;:()\[\]{{}}]*)?(?![\w.-])")
        for name in sorted(names, key=len, reverse=True)
    ]


def _bytes(value: Any) -> str:
    content = bytes(value)
    return f"bytes of {len(content)}, {_digest(content)}"


def _numpy_scalar(value: Any) -> Any:
    if value.dtype.kind == "M":
        return _TIME
    number = value.item()
    return describe(float(number) if isinstance(number, np.generic) else number)  # long double


def _array(value: Any) -> str:
    name, shape = value.dtype.name, tuple(value.shape)
    array = np.asarray(value).reshape(-1)
    if array.dtype.hasobject:  # its bytes are addresses
        return f"tensor {name} {shape} {_json_digest(describe(array.tolist()))}"
    if array.size > _MAX_HASHED_ELEMENTS:
        array = array[:: array.size // _SAMPLE]
    return f"tensor {name} {shape} {_digest(array.tobytes())}"


def _tensor(value: Any) -> str:
    if is_lazy(value):
        return "uninitialized"
    name = f"tensor {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, DTensor) or value.is_meta:  # its content depends on the rank, or there is none
        return name
    try:
        flat = value.detach().resolve_conj().resolve_neg()
        flat = flat.to_dense() if flat.layout != torch.strided else flat
        flat = flat.reshape(-1)
        if flat.numel() > _MAX_HASHED_ELEMENTS:
            flat = flat[:: flat.numel() // _SAMPLE]
        return f"{name} {_digest(flat.cpu().contiguous().view(torch.uint8).numpy().tobytes())}"
    except Exception:  # noqa: BLE001 - tensor subclasses need not support this
        return name


def _module(value: Any) -> str:
    parameters = dict(torch.nn.Module.named_parameters(value))
    name = f"module {_qualified_name(type(value))}"
    if not parameters:
        return name
    shapes = {name: "uninitialized" if is_lazy(one) else list(one.shape) for name, one in parameters.items()}
    count = sum(0 if is_lazy(one) else one.numel() for one in parameters.values())
    return f"{name} with {count} parameters, {_json_digest(shapes)}"


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=4).hexdigest()


def _json_digest(description: Any) -> str:
    return _digest(json.dumps(description, sort_keys=True).encode())


def _enum(value: Any) -> str:
    name = getattr(value, "_name_", None)
    return f"{type(value).__name__}.{name if name is not None else value._value_}"


_SIMPLE: tuple[tuple[Any, Callable[[Any], Any]], ...] = (  # the first one that fits
    ((type(None), bool), lambda value: value),
    (enum.Enum, _enum),
    (np.generic, _numpy_scalar),
    (int, _integer),
    (float, _real),
    (str, _text),
    (complex, lambda value: str(complex(value))),
    ((bytes, bytearray, memoryview), _bytes),
    ((datetime.date, datetime.time, time.struct_time), lambda value: _TIME),
    (uuid.UUID, lambda value: _IDENTIFIER),
    ((datetime.timedelta, decimal.Decimal, fractions.Fraction, range, slice), lambda value: _text(str(value))),
    (PurePath, lambda value: _text(str(value))),
    (re.Pattern, lambda value: f"regex {describe(value.pattern)}"),
    ((torch.dtype, torch.device, torch.Size, torch.layout, torch.memory_format), str),
    (torch.Tensor, _tensor),
    (np.ndarray, _array),
    (torch.nn.Module, _module),
    (_FUNCTION_TYPES, _function),
    (type, lambda value: f"class {_qualified_name(value)}"),
)


def _attribute(value: Any, name: str) -> Any:
    """Return an attribute; None if there is none or it cannot be read."""
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a property of the user's may raise anything
        return None


def _shapes(module: torch.nn.Module, sharded: bool) -> dict[str, Any]:
    """Return the shapes of the parameters; where the model is sharded, they depend on the rank and are left out."""
    return {
        name: "uninitialized" if is_lazy(one) else [] if sharded else list(one.shape)
        for name, one in module.named_parameters()
    }


def _hparams(owner: Any) -> dict[str, Any]:
    described = describe(_attribute(owner, "hparams") or {})
    return _flatten(described) if isinstance(described, dict) else {"hparams": described}


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a dict with dotted keys in place of nested dicts."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = _masked(key, value)
    return flat


def _masked(name: str, value: Any) -> Any:
    """Return the value of a setting, or a digest where its name says that it is a secret."""
    is_secret = isinstance(value, str) and _SECRET.search(name) is not None
    return f"secret {hashlib.blake2b(value.encode(), digest_size=3).hexdigest()}" if is_secret else value


def _seed() -> Any:
    seed = os.environ.get("PL_GLOBAL_SEED")
    if seed is None:
        return None
    try:
        return describe(int(seed))
    except ValueError:
        return describe(seed)


def _limits(trainer: pl.Trainer) -> dict[str, Any]:
    limits = {name: describe(_attribute(trainer, name)) for name in _LIMITS}
    interval = _attribute(trainer, "_val_check_time_interval")
    if interval is not None:  # the Trainer has no `val_check_interval` then
        limits["val_check_interval"] = f"{interval} seconds"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, GradientAccumulationScheduler):  # it sets the Trainer's value during the training
            limits["accumulate_grad_batches"] = describe(callback.scheduling)
    return limits


@functools.lru_cache
def _lightning_attributes() -> frozenset[str]:
    return frozenset(vars(pl.LightningModule()))


def _is_plain(value: Any) -> bool:
    scalars = (bool, int, float, str, np.generic, type(None))
    if isinstance(value, (list, tuple)):
        return len(value) <= _MAX_ATTRIBUTE_ELEMENTS and all(isinstance(one, scalars) for one in value)
    return isinstance(value, scalars)


def _group(group: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a parameter group."""
    settings = _settings(group, {"params", "param_names"})
    if settings.get("initial_lr") == settings.get("lr"):  # added by a scheduler; one change is reported once
        settings.pop("initial_lr", None)
    parameters = group.get("params")
    return {"parameters": len(parameters) if isinstance(parameters, (list, tuple)) else None, **settings}


def _settings(values: Mapping[str, Any], excluded: set[str]) -> dict[str, Any]:
    """Return the described settings among named values: numbers, strings, functions and containers of them."""
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name in excluded:
            continue
        described = describe(_number(value))
        if not (isinstance(described, str) and described.startswith(("object ", "module "))):
            kept[str(name)] = described
    return kept


def _number(value: Any) -> Any:
    """Return tensors of one element as numbers, also in lists; optimizers take a learning rate as a tensor."""
    if isinstance(value, (list, tuple)):
        return [_number(one) for one in value]
    try:
        if isinstance(value, torch.Tensor) and value.numel() == 1:
            return value.item()
    except Exception:  # noqa: BLE001 - a meta or sharded tensor has no value here
        return value
    return value


def _scheduler(scheduler: Any, depth: int = 0) -> dict[str, Any]:
    """Return the class and the settings of a scheduler, without its running state."""
    own = getattr(scheduler, "__dict__", {})
    hidden = {name.strip("_"): own[name] for name in _HIDDEN_SCHEDULER_SETTINGS if name in own}
    plain = {name: value for name, value in own.items() if not name.startswith("_")}
    described = {"class": _qualified_name(type(scheduler)), **_settings({**hidden, **plain}, _SCHEDULER_STATE)}
    inner = own.get("_schedulers")
    if isinstance(inner, (list, tuple)) and depth < _MAX_DEPTH:  # SequentialLR, ChainedScheduler
        described["schedulers"] = [_scheduler(one, depth + 1) for one in inner]
    return described


def _batch_size(loader: Any) -> int | None:
    for owner in (loader, _attribute(loader, "batch_sampler")):
        size = _attribute(owner, "batch_size")
        if isinstance(size, (int, np.integer)) and not isinstance(size, bool):
            return int(size)
    return None


def _samples(loader: Any) -> int | str:
    dataset = _attribute(loader, "dataset")
    if dataset is None or isinstance(dataset, IterableDataset):
        return "unknown"
    try:
        return len(dataset)
    except Exception:  # noqa: BLE001 - a dataset need not have a length
        return "unknown"


_ABSENT = object()


def _compare(path: str, saved: Any, current: Any, key: Any) -> Iterator[str]:
    """Yield the differences of one entry of two dicts or lists."""
    then, now = (one.get(key, _ABSENT) if isinstance(one, dict) else one[key] for one in (saved, current))
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted(then.keys() | now.keys(), key=str):
            yield from _compare(f"{path}.{name}", then, now, name)
    elif _are_alike_sequences(then, now) and any(isinstance(item, (dict, list, tuple)) for item in (*then, *now)):
        for index in range(len(then)):
            yield from _compare(f"{path}[{index}]", then, now, index)
    elif then != now and not _is_same_time(then, now):
        yield "{}: {} then, {} now".format(path, *_shown(then, now))


def _are_alike_sequences(then: Any, now: Any) -> bool:
    return isinstance(then, (list, tuple)) and isinstance(now, (list, tuple)) and len(then) == len(now)


def _is_same_time(then: Any, now: Any) -> bool:
    """Return whether one value is a time stamp and the other a number.

    A constant that is close to the present time at the start need not be close to it at a later restart.
    """
    return (then == _TIME and isinstance(now, (int, float))) or (now == _TIME and isinstance(then, (int, float)))


def _shown(then: Any, now: Any) -> tuple[str, str]:
    """Return two different values as short texts that differ."""
    texts = ["absent" if one is _ABSENT else str(one) for one in (then, now)]
    if "" in texts or texts[0] == texts[1]:  # 1 and "1"
        texts = ["absent" if one is _ABSENT else repr(one) for one in (then, now)]
    pairs = enumerate(zip(*texts, strict=False))
    start = next((index for index, (one, other) in pairs if one != other), min(map(len, texts)))
    start = 0 if start < _MAX_SHOWN - 10 else start - 20
    return _cut(texts[0], start), _cut(texts[1], start)


def _cut(text: str, start: int) -> str:
    shown = text if start == 0 else f"...{text[start:]}"
    return shown if len(shown) <= _MAX_SHOWN else f"{shown[: _MAX_SHOWN - 3]}..."
