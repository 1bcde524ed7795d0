"""Cache of a teacher's outputs, with the content of the input as the key."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def fingerprints(inputs: Tensor) -> Tensor:
    """Return a 64-bit fingerprint of each sample. Equal samples have equal fingerprints.

    The fingerprint is the sum of the sample's 32-bit words times fixed odd 64-bit numbers, modulo 2^64. The probability
    of a collision among a million samples is about 10^-8.

    Args:
        inputs: Samples along dimension 0.

    """
    rows = inputs.detach().reshape(inputs.shape[0], -1)
    if rows.dtype in (torch.float16, torch.bfloat16, torch.float64):
        rows = rows.float()
    words = rows.contiguous().view(torch.int32) if rows.dtype is torch.float32 else rows
    generator = torch.Generator().manual_seed(rows.shape[1])
    factors = torch.randint(-(2**62), 2**62, (rows.shape[1],), generator=generator) * 2 + 1
    return (words.to(torch.int64) * factors.to(rows.device)).sum(1)


class TeacherCache:
    """A teacher's outputs in half precision, in memory or in a directory, by fingerprint of the input.

    New outputs are rounded to half precision too, so results do not depend on whether an output was cached.

    Args:
        folder: Directory of the outputs, which are appended to two memory-mapped files. None for memory.
        identity: Identifier of the teacher and of all that changes its outputs, such as its precision.

    Raises:
        ValueError: If the directory contains the outputs of another teacher.

    Examples:
        ```python
        cache = TeacherCache()
        logits = cache.get(images, teacher)     # calls the teacher with the new images only
        ```

    """

    def __init__(self, folder: str | Path | None = None, identity: str = "") -> None:
        self.folder = None if folder is None else Path(folder)
        self.identity = identity
        self.hits = self.misses = 0
        self._rows: dict[int, int] = {}
        self._values: Tensor | np.memmap[Any, np.dtype[np.float16]] | None = None
        self._factors: dict[int, Tensor] = {}
        self._shape: list[int] | None = None
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._open(self.folder)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, inputs: Tensor, teacher: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the teacher's output for each sample, and compute the outputs that are not in the cache.

        Args:
            inputs: Samples along dimension 0.
            teacher: Called with the samples that are not in the cache.

        """
        keys = fingerprints(inputs).tolist()
        unknown = [i for i, key in enumerate(keys) if key not in self._rows]
        self.hits += len(keys) - len(unknown)
        self.misses += len(unknown)
        if unknown:
            new = inputs if len(unknown) == len(keys) else inputs[torch.tensor(unknown, device=inputs.device)]
            self._add([keys[i] for i in unknown], teacher(new).detach().to("cpu", torch.float16))
        rows = torch.tensor([self._rows[key] for key in keys])
        assert self._values is not None
        if isinstance(self._values, Tensor):
            stored = self._values[rows]
        else:
            stored = torch.from_numpy(np.asarray(self._values[rows.numpy()]))
        return stored.to(inputs.device).float()

    def state_dict(self) -> dict[str, Any]:
        """Return the outputs in memory; outputs in a directory are stored already."""
        if self.folder is not None or not isinstance(self._values, Tensor):
            return {}
        return {
            "keys": torch.tensor(list(self._rows)),
            "values": self._values[: len(self._rows)].clone(),
            "identity": self.identity,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the outputs of another cache; those of another teacher are computed again."""
        if state and self.folder is None and state.get("identity", self.identity) == self.identity:
            self._rows = {key: row for row, key in enumerate(state["keys"].tolist())}
            self._values = state["values"].clone()

    def _add(self, keys: list[int], values: Tensor) -> None:
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                "The teacher's outputs should be finite and below 65504 to be cached. Set `cache` to None."
            )
        first = {key: i for i, key in reversed(list(enumerate(keys)))}  # a batch may contain a sample twice
        chosen = sorted(first.values())
        start = len(self._rows)
        self._rows.update({keys[i]: start + number for number, i in enumerate(chosen)})
        values = values[torch.tensor(chosen)]
        if self.folder is None:
            self._append_in_memory(values, start)
        else:
            self._append_to_folder(self.folder, [keys[i] for i in chosen], values)

    def _append_in_memory(self, values: Tensor, start: int) -> None:
        assert self._values is None or isinstance(self._values, Tensor)
        needed = start + len(values)
        if self._values is None or needed > len(self._values):
            grown = torch.zeros((max(1024, 2 * needed), *values.shape[1:]), dtype=torch.float16)
            if self._values is not None:
                grown[:start] = self._values[:start]
            self._values = grown
        self._values[start:needed] = values

    def _append_to_folder(self, folder: Path, keys: list[int], values: Tensor) -> None:
        if self._shape is None:
            self._shape = list(values.shape[1:])
            (folder / "cache.json").write_text(json.dumps({"shape": self._shape, "teacher": self.identity}))
        with (folder / "values.f16").open("ab") as file:
            file.write(values.numpy().tobytes())
        with (folder / "keys.i64").open("ab") as file:  # after the values: a key without its value would be wrong
            file.write(np.asarray(keys, dtype=np.int64).tobytes())
        self._map(folder)

    def _open(self, folder: Path) -> None:
        header = folder / "cache.json"
        if not header.exists():
            return
        known = json.loads(header.read_text())
        if known["teacher"] != self.identity:
            raise ValueError(
                f"`cache` {str(folder)!r} contains the outputs of another teacher, `teacher_output` or "
                "`precision`. Use another directory, or delete it."
            )
        self._shape = known["shape"]
        row = 2 * int(np.prod(known["shape"]))
        keys_file, values_file = folder / "keys.i64", folder / "values.f16"
        if not keys_file.exists() or not values_file.exists():
            return
        complete = min(keys_file.stat().st_size // 8, values_file.stat().st_size // row)
        for file, size in ((keys_file, 8), (values_file, row)):  # incomplete rows after a kill
            with file.open("r+b") as opened:
                opened.truncate(complete * size)
        keys = np.fromfile(keys_file, dtype=np.int64)
        self._rows = {int(key): number for number, key in enumerate(keys)}
        if complete:
            self._map(folder)

    def _map(self, folder: Path) -> None:
        assert self._shape is not None
        self._values = np.memmap(folder / "values.f16", np.float16, "r", shape=(len(self._rows), *self._shape))
