"""Outputs of a teacher, computed in inference mode or read from a cache."""

from __future__ import annotations

import functools
import hashlib
import inspect
import time
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_green.compression.distillation.teacher_cache import TeacherCache
from lightning_green.compression.distillation.teachers import Ensemble
from lightning_green.compression.inputs import CONSTANTS, tensor_bytes, tensors_of
from lightning_green.utilities.validation import check_choice

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
_TIMED_SAMPLES = 10_000  # on GPUs, calls after this many samples are not waited for


class TeacherOutputs:
    """Logits of a teacher, with the time that a cache saves.

    Args:
        teacher: A module or a callable.
        output: Returns the logits from the teacher's return value.
        precision: Precision of the teacher: ``"32"``, ``"bf16"`` or ``"16"``.

    Raises:
        ValueError: If the precision is unknown.

    """

    def __init__(self, teacher: nn.Module | Callable[..., Any], output: Callable[[Any], Any], precision: str) -> None:
        check_choice("precision", precision, list(PRECISIONS))
        self.teacher = teacher
        self.cache: TeacherCache | None = None
        self._output, self._dtype = output, PRECISIONS[precision]
        self._seconds, self._timed_samples = 0.0, 0
        self._shared: list[nn.Module] = list(teacher.modules()) if isinstance(teacher, nn.Module) else []

    def prepare(self, device: torch.device, student: nn.Module) -> None:
        """Move a module to a device, and set it to evaluation mode except the layers that a student shares with it.

        Args:
            device: Device of the student.
            student: The student. The mode of its layers changes only during calls of the teacher.

        """
        if isinstance(self.teacher, nn.Module):
            self.teacher.to(device)
            own = set(student.modules())
            self._shared = [module for module in self.teacher.modules() if module in own]
            for module in set(self.teacher.modules()) - own:
                module.training = False

    def _members(self) -> list[Any]:
        return self.teacher.members if isinstance(self.teacher, Ensemble) else [self.teacher]

    def open_cache(self, location: str | Path, rank: int) -> None:
        """Keep outputs in memory (``"memory"``) or in this rank's subdirectory of ``location``.

        Raises:
            ValueError: If the directory contains other outputs: of another teacher, output function or precision.

        """
        folder = None if location == "memory" else Path(location) / f"rank-{rank}"
        parts = [*(_identity(member) for member in self._members()), _identity(self._output), str(self._dtype)]
        self.cache = TeacherCache(folder, hashlib.sha256("\n".join(parts).encode()).hexdigest())

    def logits(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
        """Return the teacher's logits for one batch, as a tensor that autograd may save.

        Args:
            args: Positional arguments of the student's network.
            kwargs: Its arguments by keyword.

        Raises:
            ValueError: If the teacher does not accept the arguments, or there is a cache and more than one input.

        """
        if self.cache is None:
            return self._compute(*args, **kwargs).clone()
        if len(args) + len(kwargs) != 1:
            raise ValueError(f"`cache` needs a network with one input, got {len(args) + len(kwargs)}. Set it to None.")
        (given,) = (*args, *kwargs.values())
        if not isinstance(given, Tensor):
            raise ValueError(
                f"`cache` needs a network with one tensor as its input, got {type(given).__name__}. Set it to None."
            )
        name = next(iter(kwargs), None)
        compute = self._compute if name is None else lambda samples: self._compute(**{name: samples})
        return self.cache.get(given, compute)

    def saved_seconds(self) -> float:
        """Return the computation time that the cache has saved: the mean time per sample, times the hits."""
        if self.cache is None or not self._timed_samples:
            return 0.0
        return self._seconds / self._timed_samples * self.cache.hits

    def state_dict(self) -> dict[str, Any]:
        """Return the cached outputs and the counts of hits and misses."""
        if self.cache is None:
            return {"cache": {}, "counts": {}}
        return {
            "cache": self.cache.state_dict(),
            "counts": {"hits": self.cache.hits, "misses": self.cache.misses},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the cache; without an open cache, do nothing."""
        if self.cache is not None:
            self.cache.load_state_dict(state["cache"])
            self.cache.hits = state["counts"].get("hits", 0)
            self.cache.misses = state["counts"].get("misses", 0)

    def _compute(self, *args: Any, **kwargs: Any) -> Tensor:
        first = next((tensor for tensor in tensors_of((args, kwargs)) if tensor.dim()), None)
        device = torch.device("cpu") if first is None else first.device
        start = time.perf_counter()
        with (
            torch.inference_mode(),
            torch.autocast(device.type, self._dtype, enabled=self._dtype is not torch.float32),
            _evaluation(self._shared),
        ):
            found = []
            for member in self._members():
                given, named = _accepted(member, args, kwargs)
                found.append(self._output(member(*given, **named)))
            logits: Tensor = found[0] if len(found) == 1 else torch.stack([one.float() for one in found]).mean(0)
        if device.type == "cuda" and self._timed_samples < _TIMED_SAMPLES:
            torch.cuda.synchronize(device)
        self._seconds += time.perf_counter() - start
        self._timed_samples += 1 if first is None else len(first)
        return logits.float()


@contextmanager
def _evaluation(modules: list[nn.Module]) -> Iterator[None]:
    """Set modules to evaluation mode, and restore their modes at the end of the context."""
    modes = [module.training for module in modules]
    for module in modules:
        module.training = False
    try:
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training


def _accepted(
    teacher: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """Return the arguments for a teacher: those of the student. Its only argument may have another name.

    Raises:
        ValueError: If the teacher does not accept them.

    """
    try:
        parameters = inspect.signature(teacher.forward if isinstance(teacher, nn.Module) else teacher)
    except ValueError:  # a builtin without a signature
        return args, kwargs
    try:
        parameters.bind(*args, **kwargs)
    except TypeError as error:
        if not args and len(kwargs) == 1:
            return tuple(kwargs.values()), {}
        given = [f"{len(args)} by position"] * bool(args) + list(kwargs)
        raise ValueError(
            f"`teacher` should accept the arguments of the student's network ({', '.join(given)}), but it cannot: "
            f"{error}. Set it to a function that calls the teacher."
        ) from None
    return args, kwargs


def _identity(value: Any) -> str:
    """Return a text that differs between modules with other weights, and between functions with other code."""
    if isinstance(value, nn.Module):
        digest = hashlib.sha256(type(value).__qualname__.encode())
        for name, tensor in value.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor_bytes(tensor))
        return digest.hexdigest()
    if isinstance(value, functools.partial):
        keywords = [(name, _identity(argument)) for name, argument in sorted(value.keywords.items())]
        return f"{_identity(value.func)} {list(map(_identity, value.args))} {keywords}"
    if inspect.ismethod(value):
        return f"{_identity(value.__self__)} {_identity(value.__func__)}"
    if isinstance(value, CONSTANTS):
        return repr(value)
    if isinstance(value, types.CodeType):
        return f"{value.co_code.hex()} {value.co_names} {list(map(_identity, value.co_consts))}"
    if isinstance(value, types.FunctionType):
        cells = [_identity(cell.cell_contents) for cell in value.__closure__ or ()]
        defaults = [_identity(default) for default in value.__defaults__ or ()]
        return f"{value.__qualname__} {_identity(value.__code__)} {defaults} {cells}"
    return f"{getattr(value, '__qualname__', type(value).__qualname__)}"
