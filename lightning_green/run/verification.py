"""Whether the script of a fit resumes exactly, found out in the background before the run exits for the first time."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from lightning_green.ledger.events import Warned
from lightning_green.ledger.run_directory import SUPERVISED_VARIABLE
from lightning_green.run.continuing import is_interactive
from lightning_green.run.fit import Fit
from lightning_green.run.identity import Invocation
from lightning_green.run.pause_rule import PauseAt, PauseRule, read_check
from lightning_green.supervisor.command import Command
from lightning_green.supervisor.launchers.detection import detect_launchers
from lightning_green.utilities.reading import read_json

log = logging.getLogger(__name__)

PENDING = "the script is being checked"
_CHECK = (sys.executable, "-m", "lightning_green", "check", "--json", "--background")
_FAILED = 2  # exit code of the check of a script that cannot be checked
_SEVERAL = "the command starts several trainings, and a check stops only the first one"
_STOP_SECONDS = 10.0
_MAX_NAMED = 5


class Verification:
    """Checks the script of a fit with ``lightning-green check``, in a process of the lowest priority.

    Until the check has ended, the run does not exit. After it, the run exits where the script resumes exactly. If
    the check cannot find out, the run does not exit.

    Args:
        fit: The fit. Its end stops the check.

    Attributes:
        why_no_exit: Why the run should not exit, or None.

    """

    def __init__(self, fit: Fit) -> None:
        self._fit = fit
        self._process: subprocess.Popen[bytes] | None = None
        self._outputs: tempfile.TemporaryDirectory[str] | None = None
        self._begun = False
        self.why_no_exit: str | None = PENDING
        self._command = command_of_process()
        self._use_record()

    def begin(self) -> None:
        """Start the check, if its result is not known from an earlier one; on a simulated clock, wait for its end."""
        if self._begun or self.why_no_exit != PENDING:
            return
        self._begun = True
        if self._command is None:
            self._conclude("no single command starts this process, so its script cannot be checked")
            return
        folder = self._fit.session.folder
        if os.environ.get(SUPERVISED_VARIABLE) and folder is not None and folder.record.get("index", 0) > 0:
            self._conclude(_SEVERAL)
            return
        try:
            self._process = self._start(self._command)
        except OSError as error:
            self._conclude(f"the check of the script could not be started: {error.strerror or error}")
            return
        self._fit.ending.undo.append(self.stop)
        if self._fit.session.clock.is_simulated:
            self._process.wait()
            self.has_ended()

    def _start(self, command: Command) -> subprocess.Popen[bytes]:
        self._outputs = tempfile.TemporaryDirectory(prefix="lightning_green_verify_", ignore_cleanup_errors=True)
        with open(self._path("result"), "wb") as result, open(self._path("errors"), "wb") as errors:
            return subprocess.Popen(
                [*_CHECK, "--", *command.words],
                cwd=command.directory,
                env=_first_environment(),
                stdin=subprocess.PIPE,  # at its end the check stops, also if this process is killed
                stdout=result,
                stderr=errors,
                start_new_session=True,
            )

    def has_ended(self) -> bool:
        """Return whether the check has ended since the last call, and apply its result."""
        if self._process is None:
            return False
        code = self._process.poll()
        if code is None:
            return False
        result, errors = self._outcome()
        if result.get("pause_at"):
            self._apply(PauseRule(PauseAt(result["pause_at"]), result["reason"]))
        else:
            self._conclude(f"the check of the script has no answer: {_reason(code, result, errors)}")
        for line in _lasting_changes(result):
            self._warn(line)
        self.stop()
        return True

    def stop(self) -> None:
        """Stop the check."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert self._outputs is not None
        process.stdin.close()
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGINT)  # a worker of this process may hold the other end of the pipe
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._outputs.cleanup()

    def _use_record(self) -> None:
        """Apply the recorded result of the last check of this script, if there is one."""
        if self._command is not None:
            rule, applies = read_check(self._command.words, self._command.directory)
            if rule is not None and applies:
                self._apply(rule)

    def _apply(self, rule: PauseRule) -> None:
        self.why_no_exit = None
        if not self._begun:  # the training has not started
            self._fit.pause_rule = self._fit.pause_rule.join(rule)
        elif rule.at is PauseAt.BATCH:
            rank_zero_info("Lightning Green: by its check, the script resumes exactly. The run may exit.")
        elif self._fit.state is not None:
            self._fit.state.limit_later(rule)

    def _conclude(self, why_no_exit: str) -> None:
        self.why_no_exit = why_no_exit
        self._warn(f"The run does not exit: {why_no_exit}.")

    def _warn(self, line: str) -> None:
        log.warning("%s", line)
        self._fit.session.record(Warned(reason=line))

    def _path(self, name: str) -> Path:
        assert self._outputs is not None
        return Path(self._outputs.name) / name

    def _outcome(self) -> tuple[dict[str, Any], str]:
        """Return the result of the check and its error output; both are empty if the check has failed early."""
        result, errors = {}, ""
        with suppress(OSError, ValueError):  # the temporary directory may have been cleaned
            errors = self._path("errors").read_text(encoding="utf-8", errors="replace")
            result = read_json(self._path("result"))
        return result, errors


def _reason(code: int, result: Mapping[str, Any], errors: str) -> str:
    """Return why a check has not found out where the script may be paused."""
    if result.get("trainings", 1) > 1:
        return _SEVERAL
    if result.get("reason"):
        return ": ".join(result[key] for key in ("reason", "remedy") if result.get(key))
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    if code == _FAILED and lines:
        first = next((line for line in lines if line.startswith("lightning-green: ")), lines[-1])
        return first.removeprefix("lightning-green: ").rstrip(".:")
    return f"it ended with exit code {code}" + (f": {lines[-1].rstrip('.')}" if lines else "")


def _lasting_changes(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield where the short runs of a check have written next to the training, as far as it is known."""
    if loggers := result.get("loggers"):
        yield f"The short runs of the check logged as usual with {', '.join(loggers)}, which cannot be redirected."
    if linked := result.get("linked"):
        more = f" and {len(linked) - _MAX_NAMED} more" if len(linked) > _MAX_NAMED else ""
        names = ", ".join(linked[:_MAX_NAMED])
        yield f"The check did not copy these, so what its short runs wrote there remains: {names}{more}."


def command_of_process() -> Command | None:
    """Return the command that starts this training: that of the supervisor, or of this process.

    Returns:
        The command; None in a notebook, under a launcher, and in a worker process.

    """
    if os.environ.get(SUPERVISED_VARIABLE):
        return Command.from_environment()
    if is_interactive() or detect_launchers() or parent_process() is not None:
        return None
    return Command(tuple(sys.orig_argv), Invocation.of_process().directory)


def _first_environment() -> dict[str, str]:
    """Return the environment with which this process began, before the script and Lightning changed it."""
    try:
        pairs = Path("/proc/self/environ").read_text(encoding="utf-8", errors="surrogateescape").split("\0")
    except OSError:  # not Linux
        return dict(os.environ)
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)
