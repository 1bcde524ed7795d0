"""The part of the training state that each rank has for itself, next to the checkpoint of Lightning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_green._lightning.callbacks import resume_weight_averaging
from lightning_green._lightning.elapsed_time import elapsed_times, set_elapsed_times
from lightning_green._lightning.tuner import tuned_values
from lightning_green.resume.checkpoints import STATE_KEY, STATE_VERSION
from lightning_green.resume.communication import Communication
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.loader_positions import LoaderPositions
from lightning_green.resume.metric_state import capture_metrics, restore_last_metrics, restore_metrics
from lightning_green.resume.module_state import (
    pending_gradients,
    set_buffers,
    set_gradients,
    set_parameters,
    unsaved_buffers,
)
from lightning_green.resume.random_states import capture_random_states, restore_random_states
from lightning_green.resume.rank_differences import remove_parts, set_parts
from lightning_green.resume.resharding import change_world_size
from lightning_green.resume.script_attributes import ScriptAttributes


def capture_rank_state(
    trainer: pl.Trainer,
    point: str,
    loaders: LoaderPositions,
    attributes: ScriptAttributes,
    communication: Communication,
    buffer_digests: dict[str, str] | None,
) -> dict[str, Any]:
    """Return the state of this rank as plain Python and tensors; all ranks call it together.

    Args:
        trainer: The trainer, at a boundary.
        point: The boundary of this rank.
        loaders: The loaders of the fit.
        attributes: The attributes of the script's objects.
        communication: The communication of the ranks.
        buffer_digests: Digests of the buffers before the training; None if a shard contains every buffer.

    Raises:
        NotPlainError: If a part cannot be saved.

    """
    module = trainer.lightning_module
    return {
        "communication": communication.capture(),
        "point": point,
        "random": capture_random_states(),
        "logged": capture_metrics(trainer),
        **loaders.capture(),
        "tuned": tuned_values(trainer),
        "elapsed": elapsed_times(trainer),
        "gradients": pending_gradients(module),
        "buffers": {} if buffer_digests is None else unsaved_buffers(module, buffer_digests),
        "attributes": attributes.capture(),
        "parts": [],
        "removed": [],
    }


def select_rank_state(
    checkpoint: dict[str, Any], rank: int, size: int, is_sharded: bool, allow_inexact: bool
) -> dict[str, Any] | None:
    """Return the state of one rank in a checkpoint, and set the parts in which the rank differs from rank 0.

    Args:
        checkpoint: The checkpoint, which is changed in place.
        rank: Global rank of this process.
        size: Number of ranks.
        is_sharded: Whether each rank holds a part of the model.
        allow_inexact: Whether to continue approximately with another number of ranks.

    Returns:
        The result of ``capture_rank_state``; None if the checkpoint contains none.

    Raises:
        InexactStateError: If the number of ranks has changed, or another version saved a state of another layout.

    """
    saved = checkpoint.get(STATE_KEY)
    if saved is None:
        return None
    if saved["version"] != STATE_VERSION:
        raise InexactStateError(
            f"Another version of Lightning Green saved the checkpoint (layout {saved['version']}; this version reads "
            f"{STATE_VERSION}). Continue with it, or start from scratch with `lightning-green run --fresh -- ...`."
        )
    if len(saved["ranks"]) != size and allow_inexact and not is_sharded:
        rank_zero_warn(
            f"The run continues with {size} processes instead of {len(saved['ranks'])}: approximately, because "
            "`allow_inexact=True`."
        )
        change_world_size(checkpoint, STATE_KEY, size)
    if len(saved["ranks"]) != size:
        raise InexactStateError(
            f"The checkpoint contains the states of {len(saved['ranks'])} process(es), and this training has {size}. "
            "Start it with the original number"
            + ("" if is_sharded else ", or continue approximately with `ExactResume(allow_inexact=True)`")
            + ", or start from scratch with `lightning-green run --fresh -- ...`."
        )
    own: dict[str, Any] = saved["ranks"][rank]
    if not is_sharded:
        own["parts"] = [*own["parts"], *own.pop("shard", {}).get("parts", [])]
    set_parts(checkpoint, own["parts"])
    remove_parts(checkpoint, own["removed"])
    return own


def restore_rank_state(trainer: pl.Trainer, saved: dict[str, Any], set_new_values: Callable[[], None] | None) -> None:
    """Restore the parts that Lightning does not; the random states last, because the others may draw from them.

    Args:
        trainer: The trainer, before the first batch.
        saved: The result of ``select_rank_state``.
        set_new_values: Sets changed settings of the optimizers, if the user asks for them.

    """
    module = trainer.lightning_module
    resume_weight_averaging(trainer)
    if set_new_values is not None:
        set_new_values()
    set_elapsed_times(trainer, saved["elapsed"])
    set_gradients(module, saved["gradients"])
    set_parameters(module, saved["parts"])
    set_buffers(module, saved["buffers"])
    restore_metrics(trainer, saved["logged"])
    restore_random_states(saved["random"])


def restore_finished_state(trainer: pl.Trainer, saved: dict[str, Any], attributes: ScriptAttributes) -> None:
    """Restore the attributes that a script reads after a fit, when the fit finished earlier and trains nothing."""
    restore_last_metrics(trainer, saved["logged"])
    set_parameters(trainer.lightning_module, saved["parts"])
    set_buffers(trainer.lightning_module, saved["buffers"])
    attributes.restore(saved["attributes"])
    restore_random_states(saved["random"])
