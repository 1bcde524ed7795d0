"""Objects of the LightningModule in its checkpoint: saved by the name of their attribute.

A package may put its loss function, its metrics or the parameters of its data into a checkpoint, for scripts that load
a model from a file. ``torch.load(weights_only=True)`` does not read such objects, and a resume does not need them,
because the script has created them again before the state is restored.
"""

from __future__ import annotations

import hashlib
import pickle
from typing import Any

import lightning.pytorch as pl
import torch

from lightning_green.resume.checkpoints import SHARDS_KEY, STATE_KEY
from lightning_green.resume.errors import InexactStateError
from lightning_green.resume.plain_data import NotPlainError, to_plain

REFERENCE = "lightning_green/attribute"
"""Key of the name of an attribute, in the dict that replaces its value."""
_OTHERS = {
    *("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "epoch", "global_step"),
    *("pytorch-lightning_version", STATE_KEY, SHARDS_KEY),
}
"""Keys of a checkpoint that the module does not add."""


class ModuleReferences:
    """Replaces objects of a module in its checkpoint by names, and names by the objects.

    Args:
        module: The module. Its layers and metrics are saved elsewhere; other objects must not change during the fit,
            which is found by a digest of their pickle.

    """

    def __init__(self, module: pl.LightningModule) -> None:
        self._module = module
        self._digests: dict[str, str | None] = {}

    def replace(self, checkpoint: dict[str, Any]) -> None:
        """Replace objects that cannot be saved and are attributes of the module; others are left as they are."""
        attributes = self._attributes()
        names = {id(value): name for name, value in attributes.items() if value is not None}
        for key in checkpoint.keys() - _OTHERS:
            checkpoint[key] = self._replaced(checkpoint[key], names)

    def _replaced(self, value: Any, names: dict[int, str]) -> Any:
        try:
            to_plain(value)
        except NotPlainError:
            name = names.get(id(value))
            if name is not None and self._is_unchanged(name, value):
                return {REFERENCE: name}
            if type(value) is dict:
                return {key: self._replaced(item, names) for key, item in value.items()}
            if type(value) in (list, tuple):
                return type(value)(self._replaced(item, names) for item in value)
        return value

    def _is_unchanged(self, name: str, value: Any) -> bool:
        if isinstance(value, torch.nn.Module):
            return True
        digest = _digest(value)
        return digest is not None and self._digests.setdefault(name, digest) == digest

    def resolve(self, checkpoint: dict[str, Any]) -> None:
        """Replace each name by the object of this process.

        Raises:
            InexactStateError: If the module has no such attribute.

        """
        attributes = self._attributes()
        for key in checkpoint.keys() - _OTHERS:
            checkpoint[key] = self._resolved(checkpoint[key], attributes)

    def _resolved(self, value: Any, attributes: dict[str, Any]) -> Any:
        if type(value) in (list, tuple):
            return type(value)(self._resolved(item, attributes) for item in value)
        if type(value) is not dict:
            return value
        if set(value) != {REFERENCE}:
            return {key: self._resolved(item, attributes) for key, item in value.items()}
        name = value[REFERENCE]
        if name not in attributes:
            raise InexactStateError(
                f"The checkpoint refers to the attribute `{name}` of {type(self._module).__name__}, which does not "
                "exist now. Start the run with the original script, or start from scratch with `--fresh`."
            )
        if not isinstance(attributes[name], torch.nn.Module):
            self._digests[name] = _digest(attributes[name])
        return attributes[name]

    def _attributes(self) -> dict[str, Any]:
        return {**vars(self._module), **dict(self._module.named_children())}


def _digest(value: Any) -> str | None:
    """Return a digest of an object, None if it has none."""
    try:
        return hashlib.sha256(pickle.dumps(value)).hexdigest()
    except Exception:  # noqa: BLE001 - an object of the script may raise anything
        return None
