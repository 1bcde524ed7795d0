"""What a fit is restored from: the state of an earlier process, and files next to it."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

import lightning.pytorch as pl
from fsspec.core import url_to_fs
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_green.ledger.run_directory import final_path
from lightning_green.resume import checkpoints
from lightning_green.resume.checkpoint_directories import continue_directories
from lightning_green.resume.kept_files import restore_files
from lightning_green.resume.training_state import STATE_KEY, ExactState
from lightning_green.run.csv_rows import drop_rows
from lightning_green.run.run import OtherTrainingError
from lightning_green.run.session import Session
from lightning_green.strategies.control_group import ControlGroup
from lightning_green.utilities.clock import SystemClock

_TOGETHER = 2.0  # seconds between the files that one validation may save


class StateSource:
    """Finds and loads the state that a fit continues from; all processes of the training take part.

    Args:
        session: Session of the fit.
        trainer: The trainer.
        ranks: Processes of the training.
        messages: Receives lines for the user.

    Attributes:
        is_final: Whether the fit had finished in an earlier process.
        description: What the fit was restored from, for people; None if it was not.

    """

    def __init__(self, session: Session, trainer: pl.Trainer, ranks: ControlGroup, messages: list[str]) -> None:
        self._session, self._trainer, self._ranks, self._messages = session, trainer, ranks, messages
        self.is_final = False
        self.description: str | None = None

    def load(self, exact: ExactState, given: Any) -> tuple[str, dict[str, Any]] | None:
        """Return the newest checkpoint that every rank can read: its path and content, or None.

        Rank 0 chooses one, each rank reads it, and if one of them cannot, rank 0 chooses an older one.

        Args:
            exact: The exact training state, which reads the part of this rank.
            given: The ``ckpt_path`` of the user, or None.

        Raises:
            OtherTrainingError: If the user asks for a state to which the run would have to go back.

        """
        problems, damaged = list[str](), list[Path]()
        while True:
            found = self._choose(problems, damaged) if self._ranks.is_rank_zero else None
            path = self._ranks.broadcast(None if found is None else found[0])
            if path is None:
                return None
            checkpoint = checkpoints.load_checkpoint(Path(path)) if found is None else found[1]
            wrong = self._ranks.broadcast(self._ranks.gather(exact.load_shard(Path(path), checkpoint)))
            if not any(wrong):
                refusal = self._ranks.broadcast(self._refuse_given(given) if self._ranks.is_rank_zero else None)
                if refusal is not None:
                    raise OtherTrainingError(refusal)
                return path, checkpoint
            problems += filter(None, wrong)
            damaged.append(Path(path))

    def restore_files(self, checkpoint: dict[str, Any]) -> None:
        """Continue the directories of checkpoints on all ranks, and their files and the logged rows on rank 0."""
        self._messages += continue_directories(self._trainer, checkpoint, self._ranks)
        folder, fit, saved = self._session.folder, self._session.fit, checkpoint.get(STATE_KEY, {})
        if folder is None:
            return
        if self.is_final:
            restore_files(self._trainer, folder.path, fit, saved.get("files", []))
        if not self.is_final or all(int(other) <= fit for other in folder.record.get("fits", {})):
            drop_rows(self._trainer, saved.get("rows", {}))  # a later fit may have logged to the same file

    def record_given(self) -> None:
        """Record the ``ckpt_path`` of the first start, and its time for a comparison with the times of files."""
        given = self._trainer.ckpt_path
        path = None if given is None else str(given)
        self._session.record_on_disk["ckpt_path"] = {"path": path, "at": SystemClock().now().timestamp()}

    def _refuse_given(self, given: Any) -> str | None:
        """Return why the ``ckpt_path`` of the user cannot be obeyed; None if it can, or is that of the first start."""
        recorded = self._session.record_on_disk.get("ckpt_path")
        if given is None or recorded is None or str(given) == recorded["path"] or self.is_final:
            return None
        if is_own_last_checkpoint(str(given), recorded["at"]):
            line = f"`ckpt_path` {given} is not used: the run continues from its own state, {self.description}."
            self._messages.append(line)
            return None
        return (
            f"The run in {self._session.path} would continue from {self.description}, and `ckpt_path` is {given} now "
            f"instead of {recorded['path']}. To continue the run, use the previous value. To start from that file, add "
            "--fresh: `lightning-green run --fresh -- ...` (the old directory is renamed)."
        )

    def owner(self) -> checkpoints.Owner:
        """Return the run and the fit, on rank 0. The id of a run stays the same when its directory is moved."""
        folder = self._session.folder
        assert folder is not None
        return checkpoints.Owner(str(folder.record.get("run_id")), self._session.fit)

    def _choose(self, problems: list[str], damaged: list[Path]) -> tuple[str, dict[str, Any]] | None:
        folder, fit = self._session.folder, self._session.fit
        assert folder is not None
        if self.is_final:
            path = final_path(folder.path, fit)
            if path in damaged:
                raise RuntimeError(problems[-1])
            self.description = "its final state"
            return str(path), checkpoints.load_checkpoint(path, self.owner())
        found = checkpoints.load_latest(folder.path, fit, problems, damaged, self.owner())
        if found is None:
            return None
        stored, checkpoint, found_problems = found
        for problem in found_problems:
            self._messages.append(
                f"{problem.rstrip('.')}. The checkpoint before it is used: step {stored.global_step}."
            )
        self.description = f"step {stored.global_step}"
        self._session.recorder.global_step = stored.global_step
        return str(stored.path), checkpoint


def is_own_last_checkpoint(path: str, since: float) -> bool:
    """Return whether a file is the last checkpoint in its directory, written since a time in seconds since 1970.

    Scripts choose it to continue after an interruption, in contrast to an older one to go back to. It is the newest
    one, or ``last.ckpt``, next to which another callback may have saved a newer one.

    Args:
        path: Path of any file system of fsspec.
        since: Seconds since 1970.

    """
    is_last = PurePath(path).name.startswith(ModelCheckpoint.CHECKPOINT_NAME_LAST)
    try:
        files, name = url_to_fs(path)
        written = files.modified(name).timestamp()
        siblings = files.ls(str(PurePath(name).parent), detail=False)
        newest = max(files.modified(one).timestamp() for one in siblings if one.endswith(PurePath(name).suffix))
    except (OSError, ValueError, NotImplementedError):
        return False
    return since <= written and (is_last or newest - written < _TOGETHER)
