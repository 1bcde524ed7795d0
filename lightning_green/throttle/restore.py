"""Restoring devices that a killed process left throttled.

The journal is in the run directory, which is untrusted input: it selects among the registered actuators, and these
restore only devices that they find by themselves.
"""

from __future__ import annotations

import ctypes
from pathlib import Path

from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.journal import Journal, JournalEntry
from lightning_green.throttle.registry import actuator_class, registered_name


def restore_left_over(run_dir: str | Path, node: str = "") -> list[str]:
    """Restore the devices of this node that a killed process left throttled.

    The supervisor calls this function after its child process has ended. To call it by hand, run
    ``python -c "from lightning_green.throttle import restore_left_over; print(restore_left_over('DIR'))"``.

    Args:
        run_dir: Run directory.
        node: Number of this node in a run with several nodes.

    Returns:
        One message per device; an empty list if no device was throttled.

    """
    own = Journal(Path(run_dir), node)
    return [message for journal in (own, *own.siblings()) for message in _restore_journal(journal)]


def _restore_journal(journal: Journal) -> list[str]:
    messages = []
    try:
        entries = journal.abandoned()
    except OSError as error:
        return [f"Throttled devices are not restored from {journal.path}: {error}. Check them and remove the file."]
    for entry in entries:
        try:
            _restore_entry(entry)
        except (OSError, ThrottleError) as error:
            messages.append(f"{entry.kind} is still throttled and could not be restored to {entry.state}: {error}")
            continue
        journal.forget(entry.kind, entry.arguments)
        messages.append(
            f"{entry.kind} was still throttled after its process had ended; its original state is restored."
        )
    return messages


def _restore_entry(entry: JournalEntry) -> None:
    name = registered_name(entry.kind)
    try:
        actuator = actuator_class(name).from_journal(entry.arguments)
    except KeyError:
        raise ThrottleError(f"no actuator is registered as {name!r}; install the package that provides it") from None
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ThrottleError(f"the actuator {name!r} cannot be created: {error}") from error
    try:
        actuator.write_state(entry.state)
    except (AttributeError, LookupError, TypeError, ValueError, ctypes.ArgumentError) as error:
        raise ThrottleError(f"{entry.state} is not a state of this device ({type(error).__name__})") from error
