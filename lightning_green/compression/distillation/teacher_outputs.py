"""Outputs of a teacher, computed in inference mode or read from a cache."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_green.compression.distillation.teacher_cache import TeacherCache
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

    def prepare(self, device: torch.device) -> None:
        """Move a module to a device, in evaluation mode and without gradients."""
        if isinstance(self.teacher, nn.Module):
            self.teacher.to(device).eval().requires_grad_(False)

    def open_cache(self, location: str | Path, rank: int) -> None:
        """Keep outputs in memory (``"memory"``) or in this rank's subdirectory of ``location``.

        Raises:
            ValueError: If the directory contains the outputs of another teacher.

        """
        folder = None if location == "memory" else Path(location) / f"rank-{rank}"
        self.cache = TeacherCache(folder, _identity(self.teacher))

    def logits(self, inputs: tuple[Any, ...]) -> Tensor:
        """Return the teacher's logits for one batch, as a tensor that autograd may save.

        Args:
            inputs: Positional arguments of the teacher.

        Raises:
            ValueError: If there is a cache and more than one input.

        """
        if self.cache is None:
            return self._compute(*inputs).clone()
        if len(inputs) != 1:
            raise ValueError(f"`cache` needs a network with one input, got {len(inputs)}. Set it to None.")
        return self.cache.get(inputs[0], self._compute)

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

    def _compute(self, *inputs: Any) -> Tensor:
        device = inputs[0].device
        start = time.perf_counter()
        with (
            torch.inference_mode(),
            torch.autocast(device.type, self._dtype, enabled=self._dtype is not torch.float32),
        ):
            logits: Tensor = self._output(self.teacher(*inputs))
        if device.type == "cuda" and self._timed_samples < _TIMED_SAMPLES:
            torch.cuda.synchronize(device)
        self._seconds += time.perf_counter() - start
        self._timed_samples += len(inputs[0])
        return logits.float()


def _identity(teacher: Any) -> str:
    """Return a hash of a module's weights, or the name of another callable."""
    if not isinstance(teacher, nn.Module):
        return str(getattr(teacher, "__qualname__", type(teacher).__qualname__))
    digest = hashlib.sha256()
    for name, tensor in teacher.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
