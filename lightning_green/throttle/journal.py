"""What was found before a throttle changed it, in the run's folder."""

from __future__ import annotations

import glob
import importlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from lightning_green.throttle.errors import ThrottleError
from lightning_green.utilities.files import write_json

_WHERE = {
    "NVML power limit": ("nvml_power_limit", "NvmlPowerLimit"),
    "NVML locked clocks": ("nvml_locked_clocks", "NvmlLockedClocks"),
    "zeusd power limit": ("zeusd_power_limit", "ZeusdPowerLimit"),
    "zeusd locked clocks": ("zeusd_locked_clocks", "ZeusdLockedClocks"),
    "RAPL power limit": ("rapl_power_limit", "RaplPowerLimit"),
    "CPU governor": ("cpu_governor", "CpuGovernor"),
    "cgroup cpu.max": ("cgroup_cpu_max", "CgroupCpuMax"),
}


class Journal:
    """The file ``throttle.<node>.json`` in a run's folder; each node restores its own devices.

    Args:
        run_dir: The run's folder.
        node: What tells this node from others whose machine has the same name.

    """

    def __init__(self, run_dir: Path, node: str = "") -> None:
        name = f"{socket.gethostname()}.{node}" if node else socket.gethostname()
        self.path = Path(run_dir) / f"throttle.{name}.json"

    def others(self) -> list[Journal]:
        """Return the journals of this machine under the numbers of other nodes: a restart may have numbered anew."""
        found = []
        for path in self.path.parent.glob(f"throttle.{glob.escape(socket.gethostname())}.*json"):
            journal = Journal(self.path.parent)
            journal.path = path
            if path != self.path and journal._load().get("boot") == _boot():
                found.append(journal)
        return found

    def save(self, kind: str, arguments: dict[str, Any], state: dict[str, Any]) -> None:
        """Put down what was found, on disk before this returns. What is there already is older, and stays.

        Raises:
            OSError: If the file cannot be written; then nothing may be changed.

        """
        content = self._load()
        content["entries"].setdefault(_key(kind, arguments), {"kind": kind, "arguments": arguments, "state": state})
        content |= {"pid": os.getpid(), "started": _started(os.getpid()), "boot": _boot()}
        write_json(self.path, content)

    def forget(self, kind: str, arguments: dict[str, Any]) -> None:
        """Strike out an entry that was restored; the last one takes the file with it."""
        content = self._load()
        content["entries"].pop(_key(kind, arguments), None)
        if content["entries"]:
            write_json(self.path, content)
        else:
            self.path.unlink(missing_ok=True)

    def restore(self) -> list[str]:
        """Bring back what a process that is gone left changed; return a line on each.

        Nothing is done while that process is alive, and after a restart of the machine the devices have forgotten.
        """
        content, told = self._load(), []
        pid = content.get("pid")
        if not content["entries"] or (isinstance(pid, int) and _started(pid) == content["started"]):
            return []
        if content.get("boot") != _boot():
            self.path.unlink(missing_ok=True)
            return []
        for entry in content["entries"].values():
            kind = entry["kind"]
            try:
                _build(kind, entry["arguments"])._write(entry["state"])
            except (OSError, ThrottleError) as error:
                told.append(f"{kind} was left throttled and could not be brought back to {entry['state']}: {error}")
                continue
            self.forget(kind, entry["arguments"])
            told.append(f"{kind} was left throttled by a process that is gone; it is as it was before.")
        return told

    def _load(self) -> dict[str, Any]:
        try:
            content = json.loads(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            content = None
        except ValueError:  # not ours: it is written in one piece
            content = None
        return content if isinstance(content, dict) and isinstance(content.get("entries"), dict) else {"entries": {}}


def restore_left_over(run_dir: str | Path, node: str = "") -> list[str]:
    """Bring back what a killed run left throttled on this node; return a line on each device, none where none was.

    The supervisor calls it when its child has ended; by hand it is
    ``python -c "from lightning_green.throttle import restore_left_over; print(restore_left_over('DIR'))"``.

    Args:
        run_dir: The run's folder.
        node: Number of this node, where the run has several.

    """
    own = Journal(Path(run_dir), node)
    return [line for journal in (own, *own.others()) for line in journal.restore()]


def _build(kind: str, arguments: dict[str, Any]) -> Any:
    module, name = _WHERE[kind]
    return getattr(importlib.import_module(f"lightning_green.throttle.actuators.{module}"), name)(**arguments)


def _key(kind: str, arguments: dict[str, Any]) -> str:
    return f"{kind} {json.dumps(arguments, sort_keys=True)}"


def _started(pid: int) -> str | None:
    """Return when a process started, in ticks since boot, so that a reused number is not taken for it."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "unknown"
