"""The random states of a process, as plain Python and tensors."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):  # `torch.load(weights_only=True)` refuses NumPy arrays
        return {"dtype": str(value.dtype), "values": torch.from_numpy(value.astype(np.int64))}
    return value.item() if isinstance(value, np.generic) else value


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"dtype", "values"}:
            return value["values"].numpy().astype(value["dtype"])
        return {key: _from_plain(item) for key, item in value.items()}
    return value


def _cuda_in_use() -> bool:
    return torch.cuda.is_available() and bool(torch.cuda.is_initialized())  # type: ignore[no-untyped-call]


def synchronize_cuda() -> None:
    """Wait until the work queued on the CUDA device is done, if CUDA is in use."""
    if _cuda_in_use():
        torch.cuda.synchronize()


def capture_random_states(with_cuda: bool = True) -> dict[str, Any]:
    """Return the states of torch's, NumPy's and Python's global generators.

    Args:
        with_cuda: Whether to include the generators of the CUDA devices, if CUDA is in use.

    """
    version, numbers, gauss = random.getstate()
    states: dict[str, Any] = {
        "torch": torch.default_generator.get_state(),
        "numpy": _to_plain(np.random.get_state(legacy=False)),
        "python": [version, torch.tensor(numbers, dtype=torch.int64), gauss],
    }
    if with_cuda and _cuda_in_use():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_random_states(states: dict[str, Any]) -> None:
    """Set the global generators to the result of ``capture_random_states``."""
    torch.default_generator.set_state(states["torch"])
    np.random.set_state(_from_plain(states["numpy"]))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers.tolist()), gauss))
    if "cuda" in states:
        torch.cuda.set_rng_state_all(states["cuda"])


def seed_random_states(seed: int) -> None:
    """Seed the global CPU generators of torch, NumPy and Python."""
    torch.default_generator.manual_seed(seed)  # `torch.manual_seed` would seed CUDA as well
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


class RandomStream:
    """A separate stream of random numbers: a context manager that replaces the states of the global CPU generators.

    Each time it is entered, the stream continues where it was exited.

    Args:
        start: Initial state of the stream: a seed, or the result of ``capture_random_states``.

    """

    def __init__(self, start: int | dict[str, Any]) -> None:
        self._start: int | dict[str, Any] | None = start
        self._own: Any = None
        self._outside: Any = None

    def __enter__(self) -> None:
        self._outside = global_states()
        if self._start is None:
            _set_states(self._own)
        elif isinstance(self._start, int):
            seed_random_states(self._start)
        else:
            restore_random_states(self._start)
        self._start = None

    def __exit__(self, *_: object) -> None:
        self._own = global_states()
        _set_states(self._outside)

    def capture(self) -> dict[str, Any]:
        """Return the state of the stream, as ``capture_random_states`` does."""
        with self:
            return capture_random_states(with_cuda=False)

    def restart(self, start: dict[str, Any]) -> None:
        """Continue from a result of ``capture``."""
        self._start = start


def global_states() -> tuple[torch.Tensor, Any, Any]:
    """Return the states of the global CPU generators, to compare them; ``capture_random_states`` returns plain data."""
    return torch.default_generator.get_state(), np.random.get_state(), random.getstate()


def equal_states(one: tuple[torch.Tensor, Any, Any], other: tuple[torch.Tensor, Any, Any]) -> bool:
    """Return whether two results of ``global_states`` are equal, so that no random number was drawn in between."""
    return (
        torch.equal(one[0], other[0])
        and one[1][2:] == other[1][2:]
        and np.array_equal(one[1][1], other[1][1])
        and one[2] == other[2]
    )


def _set_states(states: tuple[torch.Tensor, Any, Any]) -> None:
    torch.default_generator.set_state(states[0])
    np.random.set_state(states[1])
    random.setstate(states[2])
