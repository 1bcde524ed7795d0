"""A check, before anything depends on it, that a training state can be saved and loaded."""

from __future__ import annotations

import collections
import io
import math
from typing import Any

import torch

from lightning_green.resume.plain_data import TAG, NotPlainError, from_plain, to_plain
from lightning_green.resume.plain_forms import FORMS_BY_NAME

_MAX_ELEMENTS = 16
"""Larger tensors are replaced by small ones."""


def check_loads(state: Any) -> None:
    """Check that a state can be written and read back.

    Large tensors are replaced by small ones, so it takes milliseconds.

    Args:
        state: The state.

    Raises:
        NotPlainError: If a part of the state cannot be saved, or is not equal when it is read back.

    """
    small = _without_content(to_plain(state))
    file = io.BytesIO()
    try:
        torch.save(small, file)
        file.seek(0)
        restored = torch.load(file, weights_only=True)
        from_plain(restored)
    except Exception as error:  # torch's pickler and unpickler raise errors of any class
        line = (str(error).splitlines() or [type(error).__name__])[0]
        raise NotPlainError("", f"cannot be written and read back: {line}") from error
    _compare(restored, small, "")


def _without_content(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        is_plain = value.layout == torch.strided and value.device.type != "meta" and not hasattr(value, "device_mesh")
        return value if is_plain and value.numel() <= _MAX_ELEMENTS else torch.zeros(1, dtype=value.dtype)
    if type(value) in (dict, collections.OrderedDict) and not _owns_tensors(value):
        return {key: _without_content(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)([_without_content(item) for item in value])
    return value


def _owns_tensors(value: dict[Any, Any]) -> bool:
    """Return whether a dict is a form whose tensors depend on its other fields and cannot be replaced."""
    form = FORMS_BY_NAME.get(value.get(TAG, ""))
    return form is not None and form.owns_tensors


def _compare(found: Any, expected: Any, path: str) -> None:
    if type(found) is not type(expected):
        raise NotPlainError(path, f"is a `{type(expected).__name__}` and is read back as `{type(found).__name__}`")
    if isinstance(expected, dict):
        for key in expected:
            _compare(found.get(key), expected[key], f"{path}[{key!r}]" if path else str(key))
    elif isinstance(expected, (list, tuple)):
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            _compare(one, other, f"{path}[{index}]")
    elif isinstance(expected, torch.Tensor):
        if (found.dtype, found.shape) != (expected.dtype, expected.shape):
            raise NotPlainError(path, "is another tensor when it is read back")
    elif isinstance(expected, float) and math.isnan(expected):
        return
    elif found != expected:
        raise NotPlainError(path, "is not equal when it is read back")
