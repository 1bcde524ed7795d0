"""The attributes that Lightning and PyTorch themselves set on modules and data modules."""

from __future__ import annotations

from functools import cache


@cache
def attributes_of(kind: type) -> frozenset[str]:
    """Return the names of the attributes that Lightning sets on an instance of one of its classes.

    Args:
        kind: ``LightningModule``, ``LightningDataModule`` or ``torch.nn.Module``.

    """
    return frozenset({*vars(kind()), "_hparams", "_hparams_name", "_hparams_initial", "_trainer", "trainer"})
