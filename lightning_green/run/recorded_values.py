"""Compare a fit that continues with what its run directory has recorded about it."""

from __future__ import annotations

import os
from typing import Any

import lightning.pytorch as pl

from lightning_green._lightning.callbacks import finetuned_optimizers, schedulers_are_replaced
from lightning_green.ledger.run_directory import FORCE_VARIABLE
from lightning_green.resume.fingerprint import data_fingerprint, differences, optimizer_fingerprint
from lightning_green.run.run import OtherTrainingError, refusal, shorten
from lightning_green.run.session import Session

# With another number of processes, schedules and loaders have other lengths as well.
_PER_WORLD_SIZE = {"world_size", "schedulers", "training_batches", "batch_sizes"}


class RecordedValues:
    """The optimizers and the data of a fit as its run directory has recorded them.

    Args:
        session: Session of the fit.
        trainer: The trainer.
        messages: Receives lines for the user.

    Attributes:
        allow_inexact: Whether a change of the number of processes is accepted.

    """

    def __init__(self, session: Session, trainer: pl.Trainer, messages: list[str]) -> None:
        self._session, self._trainer, self._messages = session, trainer, messages
        self.allow_inexact = False
        self._world_size_changed: bool | None = None  # until the optimizers are compared

    def check_data(self) -> None:
        """Compare the data, and record it.

        Raises:
            OtherTrainingError: If it differs and ``--force`` is not set.

        """
        self._compare("data", data_fingerprint(self._trainer))

    def check_optimizers(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Compare the optimizers, and record them; the first call acts.

        Returns:
            The recorded and the new values if they differ, or None.

        Raises:
            OtherTrainingError: If they differ and ``--force`` is not set.

        """
        if self._world_size_changed is not None:
            return None
        world_size = self._trainer.world_size
        recorded = self._session.record_on_disk.get("optimization", {})
        self._world_size_changed = recorded.get("world_size", world_size) != world_size
        current = optimizer_fingerprint(self._trainer)
        if recorded and self._session.continuing:  # these groups are those of the checkpoint, not of the script
            restored = finetuned_optimizers(self._trainer)
            pairs = zip(current["optimizers"], recorded["optimizers"], strict=False)
            for number, (optimizer, known) in enumerate(pairs):
                if number in restored:
                    optimizer["groups"] = known["groups"]
            if schedulers_are_replaced(self._trainer):  # it removes those of the script in `on_fit_start`
                current["schedulers"] = recorded.get("schedulers")
        return self._compare("optimization", current)

    def _compare(self, part: str, current: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]] | None:
        if self._session.folder is None:
            return None
        record, changed = self._session.record_on_disk, None
        if self._session.continuing and part in record:
            ignored = _PER_WORLD_SIZE if self.allow_inexact and self._world_size_changed else set[str]()
            saved = {key: value for key, value in record[part].items() if key not in ignored}
            found = differences(saved, current)
            if found and os.environ.get(FORCE_VARIABLE) != "1":
                seeded = part != "data" or "PL_GLOBAL_SEED" in os.environ
                hint = "" if seeded else " If the script draws its data at random, call `seed_everything` before."
                raise OtherTrainingError(refusal(self._session.path, shorten(found)) + hint)
            if found:
                self._messages.append(f"Continued with other values, as --force asks for: {shorten(found)}.")
                changed = record[part], current
        record[part] = current
        return changed
