"""Collecting the training state of all ranks at a boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, cast

import lightning.pytorch as pl

from lightning_green._lightning.checkpoint import drop_hyperparameters, drop_loader_states, dump_checkpoint
from lightning_green.resume.checkpoints import (
    SHARDS_KEY,
    STATE_KEY,
    STATE_VERSION,
    shard_is_complete,
    shard_path,
    write_durably,
)
from lightning_green.resume.communication import Communication
from lightning_green.resume.load_check import check_loads
from lightning_green.resume.loader_positions import LoaderPositions
from lightning_green.resume.module_references import ModuleReferences
from lightning_green.resume.module_state import buffer_digests, changed_buffers, without_buffers
from lightning_green.resume.plain_data import NotPlainError, to_plain
from lightning_green.resume.rank_differences import Part, differing_parts, missing_parts, part_digests, plain_parts
from lightning_green.resume.rank_state import capture_rank_state
from lightning_green.resume.script_attributes import ScriptAttributes
from lightning_green.strategies.control_group import ControlGroup
from lightning_green.strategies.sharded_state import capture_shard, is_sharded

Point = Literal["epoch", "batch"]
"""A boundary at which a state is saved: before an epoch, or after a batch."""


class StateCapture:
    """Collects the training state: Lightning's checkpoint, and the part of each rank that Lightning does not save.

    Args:
        trainer: The trainer, during ``setup``.
        ranks: The ranks of the training.
        loaders: The loaders of the fit.
        attributes: The attributes of the script's objects.
        communication: The communication of the ranks.

    Attributes:
        references: Objects of the module that its checkpoint contains by name.

    """

    def __init__(
        self,
        trainer: pl.Trainer,
        ranks: ControlGroup,
        loaders: LoaderPositions,
        attributes: ScriptAttributes,
        communication: Communication,
    ) -> None:
        self._trainer, self._ranks, self._loaders = trainer, ranks, loaders
        self._attributes, self._communication = attributes, communication
        self.references = ModuleReferences(trainer.lightning_module)
        self._sharded = is_sharded(trainer)
        self._buffers_before = None if self._sharded else buffer_digests(trainer.lightning_module)

    def why_not_saved(self, point: Point) -> str | None:
        """Return why the state cannot be saved and restored, None if it can; called on all ranks together.

        The state, without the contents of large tensors, is written to memory, read back and compared.
        """
        problem = None
        if self._ranks.size > 1:  # a rank that fails in the middle would keep the others waiting
            try:
                dump_checkpoint(self._trainer, with_model=False)
            except Exception as error:  # noqa: BLE001 - a hook of the script may raise anything
                problem = f"{type(error).__name__} while it was collected: {error}"
            if any(problems := self._ranks.broadcast([one for one in self._ranks.gather(problem) if one])):
                return str(problems[0])
        try:
            state = self._collect(point, None)
            if self._ranks.is_rank_zero:
                check_loads(state)
        except NotPlainError as error:
            return str(error).rstrip(".")
        except Exception as error:  # of a hook of the script
            if self._ranks.size > 1:
                raise
            return None if self._trainer.global_step == 0 else f"{type(error).__name__} while it was saved: {error}"
        return None

    def dump(self, point: Point, path: Path | None = None) -> dict[str, Any]:
        """Return the whole state on rank 0; called at a boundary, on every rank.

        Args:
            point: The boundary.
            path: Path to which rank 0 will write the state. Each rank of a sharded model writes its part next to it
                before this returns on rank 0.

        Raises:
            OSError: On rank 0, if a rank could not write its part.
            NotPlainError: On rank 0, if a part of the state cannot be saved.

        """
        state = self._collect(point, path)
        return cast("dict[str, Any]", to_plain(state)) if self._ranks.is_rank_zero else {}

    def _collect(self, point: Point, path: Path | None) -> dict[str, Any]:
        checkpoint = dump_checkpoint(self._trainer, with_model=not self._sharded)
        drop_hyperparameters(checkpoint)  # the script sets them, and their types are arbitrary
        drop_loader_states(checkpoint)  # the state of each rank contains them
        self.references.replace(checkpoint)
        own, problem = dict[str, Any](), None
        try:
            own = capture_rank_state(
                *(self._trainer, point, self._loaders, self._attributes, self._communication, self._buffers_before)
            )
        except NotPlainError as error:  # raised on rank 0 after the gather, which all ranks have to reach
            problem = error
        large = self._keep_differences(checkpoint, own) if self._ranks.size > 1 else []
        content = dict[str, Any]()
        try:
            plain_parts(own.get("parts", []))  # rank 0 converts them, and the gather cannot pickle every object
            content = self._shard_content(large)
        except NotPlainError as error:
            problem = problem or error
        if problem is not None:
            own, content = {}, {}
        shard = self._write_shard(path, content) if path is not None and content else None
        parts = self._ranks.gather((own, shard, problem))
        for _, _, found in parts:
            if found is not None:
                raise found
        checkpoint[STATE_KEY] = {"version": STATE_VERSION, "point": point, "ranks": [own for own, _, _ in parts]}
        shards = [shard for _, shard, _ in parts if shard is not None]
        for name, size, failure in shards:
            if failure:
                raise OSError(failure)
            if path is not None and not shard_is_complete(path.with_name(name), size):
                raise OSError(f"{name}, written by another process, is not visible in {path.parent} on this node")
        if shards:
            checkpoint[SHARDS_KEY] = {name: size for name, size, _ in shards}
        return checkpoint

    def _keep_differences(self, checkpoint: dict[str, Any], own: dict[str, Any]) -> list[Part]:
        """Add to ``own`` where this rank differs from rank 0; return the weights and optimizer states that differ."""
        module = self._trainer.lightning_module
        compared, own_buffers = checkpoint, dict[str, str]()
        if not self._sharded:  # a shard contains every buffer
            compared = checkpoint | {"state_dict": without_buffers(module, checkpoint["state_dict"])}
            own_buffers = buffer_digests(module)
        own_parts = part_digests(compared)
        parts, buffers = self._ranks.broadcast((own_parts, own_buffers))
        if self._ranks.is_rank_zero or not own:
            return []
        own["parts"], large = differing_parts(checkpoint, own_parts, parts)
        own["removed"] = missing_parts(checkpoint, parts)
        if not self._sharded:
            own["buffers"] |= changed_buffers(module, own_buffers, buffers)
        return large

    def _shard_content(self, large: list[Part]) -> dict[str, Any]:
        """Return the part of this rank that is written to a file of its own, as plain data; empty if there is none."""
        if self._sharded:
            return cast("dict[str, Any]", to_plain(capture_shard(self._trainer)))
        return {"parts": plain_parts(large)} if large else {}

    def _write_shard(self, path: Path, content: dict[str, Any]) -> tuple[str, int, str]:
        """Write the part of this rank; return its name, its size in bytes, and an error message or an empty string."""
        shard = shard_path(path, self._ranks.rank)
        try:
            write_durably(content, shard)
        except OSError as error:  # raised on rank 0 after the gather, which all ranks have to reach
            return shard.name, 0, str(error)
        return shard.name, shard.stat().st_size, ""
