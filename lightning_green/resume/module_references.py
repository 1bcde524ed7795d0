"""Objects of the LightningModule in its checkpoint: saved by the name of their attribute.

A package may put its loss function, its metrics or the parameters of its data into a checkpoint, for scripts that load
a model from a file. ``torch.load(weights_only=True)`` does not read such objects, and a resume does not need them,
because the script has created them again before the state is restored.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch

from lightning_green._lightning.module_attributes import attributes_of
from lightning_green.resume.attribute_values import SCALARS
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
        self._layers: dict[str, torch.nn.Module] = {}
        self._digests: dict[str, str] = {}

    def begin(self, callbacks: Iterable[pl.Callback] = ()) -> None:
        """Remember the layers and the digests of other attributes: a process that continues has the same ones.

        Called where Lightning restores a checkpoint. If no hook adds anything to the checkpoint, nothing is read.

        Args:
            callbacks: The callbacks.

        """
        hooks = [self._module.on_save_checkpoint, *(callback.on_save_checkpoint for callback in callbacks)]
        if not any(_adds_to_checkpoint(hook) for hook in hooks):
            return
        self._layers = dict(self._module.named_children())
        digests = {name: _digest(value) for name, value in self._attributes().items() if name not in self._layers}
        self._digests = {name: digest for name, digest in digests.items() if digest is not None}

    def replace(self, checkpoint: dict[str, Any]) -> None:
        """Replace objects that cannot be saved and are attributes of the module; others are left as they are."""
        known = self._layers | self._digests
        names = {id(value): name for name, value in self._attributes().items() if name in known}
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
        if name in self._layers:  # metrics define `==`
            return self._layers[name] is value
        return self._digests[name] == _digest(value)

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
        return attributes[name]

    def _attributes(self) -> dict[str, Any]:
        own = {name: one for name, one in vars(self._module).items() if name not in attributes_of(pl.LightningModule)}
        return {**own, **dict(self._module.named_children())}


def _adds_to_checkpoint(hook: Any) -> bool:
    """Return whether an ``on_save_checkpoint`` is another one than that of Lightning's base classes."""
    module = getattr(hook, "__module__", None) or ""
    return module.partition(".")[0] not in ("lightning", "pytorch_lightning")


def _digest(value: Any) -> str | None:
    """Return a digest of an object, None if it has none or needs none."""
    if isinstance(value, (*SCALARS, torch.Tensor, np.ndarray)):
        return None
    digest = _Digest()
    try:
        pickle.Pickler(digest).dump(value)
    except Exception:  # noqa: BLE001 - an object of the script may raise anything
        return None
    return digest.total.hexdigest()


class _Digest:
    """A file of which only the digest is kept: an object may be as large as the data."""

    def __init__(self) -> None:
        self.total = hashlib.sha256()

    def write(self, content: Any) -> None:
        self.total.update(content)
