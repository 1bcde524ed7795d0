"""Restoring devices that a killed process left throttled."""

from __future__ import annotations

from pathlib import Path

from lightning_green.throttle.errors import ThrottleError
from lightning_green.throttle.journal import Journal, JournalEntry
from lightning_green.throttle.registry import actuator_class, registered_name
from lightning_green.throttle.sysfs import write_texts

_REMOVED_FILE_KINDS = frozenset({"cgroup cpu.max"})
"""Kinds in older journals whose actuator no longer exists and whose state is ``{path: text}``."""


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
    for entry in journal.abandoned():
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
    if entry.kind in _REMOVED_FILE_KINDS:
        write_texts(entry.state)
        return
    name = registered_name(entry.kind)
    try:
        actuator = actuator_class(name)(**entry.arguments)
    except KeyError:
        raise ThrottleError(f"no actuator is registered as {name!r}; install the package that provides it") from None
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ThrottleError(f"the actuator {name!r} cannot be created: {error}") from error
    actuator.write_state(entry.state)
