"""Starting examples, and reading what they wrote."""

import json
import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def start(folder, *arguments):
    """Run Python in ``folder`` without this process's variables for runs; return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("LIGHTNING_GREEN_", "WANDB_"))}
    environment |= {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder, env=environment, capture_output=True, text=True, errors="replace", timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def read_wandb(path):
    """Return the run ids and the history rows of a W&B file."""
    ids, rows = set(), []
    for record in wandb_records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            ids.add(record.run.run_id)
        elif kind == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return ids, rows


def wandb_records(data):
    """Return the records of a W&B file."""
    from wandb.proto import wandb_internal_pb2

    return [wandb_internal_pb2.Record.FromString(record) for record in _log_records(data)]


def _log_records(data):
    """Yield the records of a W&B file: LevelDB's log format after seven bytes of W&B's own.

    Blocks of 32 KiB hold fragments, each with a checksum (4 bytes), a length (2) and a type (1: a whole record, or the
    first, a middle or the last part of one: 1, 2, 3, 4); a block ends with zeros where no fragment fits any more.
    """
    at, parts = 7, []
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + 7 + length > len(data):
            return  # still being written
        parts.append(data[at + 7 : at + 7 + length])
        at += 7 + length
        if kind in (1, 4):
            yield b"".join(parts)
            parts = []
