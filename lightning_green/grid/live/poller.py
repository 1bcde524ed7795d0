"""Polling in a process of its own, so that no step of a training waits for the interpreter's lock."""

from __future__ import annotations

import contextlib
import json
import os
import signal as signals
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from lightning_green.grid.live.snapshot import Snapshot
from lightning_green.utilities.http.transport import Limits

if TYPE_CHECKING:
    from lightning_green.grid.live.signal import LiveSignal

_SIZE = struct.Struct(">II")
_START = "from lightning_green.grid.live.poller import main; main()"


@dataclass(frozen=True)
class Message:
    """What a polling process tells.

    Args:
        snapshot: All that is known.
        problem: One sentence on what is wrong, or None.
        zone: The zone, which a service may have found for coordinates.
        news: What happened since the last message.
        asked: Whether the source was asked; False for what the cache held.

    """

    snapshot: Snapshot
    problem: str | None
    zone: str | None
    news: list[str]
    asked: bool

    def write(self, stream: IO[bytes]) -> None:
        """Write the message to a pipe."""
        said = {"problem": self.problem, "zone": self.zone, "news": self.news, "asked": self.asked}
        head, body = json.dumps(said).encode(), self.snapshot.pack()
        stream.write(_SIZE.pack(len(head), len(body)) + head + body)
        stream.flush()

    @classmethod
    def read(cls, stream: IO[bytes]) -> Message | None:
        """Wait for a message on a pipe and return it; None where the pipe ends."""
        sizes = stream.read(_SIZE.size)
        if len(sizes) < _SIZE.size:
            return None
        head, body = _SIZE.unpack(sizes)
        data = stream.read(head + body)
        return cls(Snapshot.unpack(data[head:]), **json.loads(data[:head])) if len(data) == head + body else None


class Poller:
    """The process that polls for one signal, seen from the process that trains.

    It ends when the pipe to it does, so it does not outlive a training that was killed.

    Args:
        process: The started process.

    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def follow(self, take: Callable[[Message], None], stop: threading.Event) -> None:
        """Hand each message to ``take`` until the process ends or ``stop`` is set."""
        assert self._process.stdout is not None
        while not stop.is_set():
            try:
                message = Message.read(self._process.stdout)
            except (OSError, ValueError, KeyError, TypeError):
                message = None
            if message is None:
                break
            take(message)
        self.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5.0)
        self._process.stdout.close()

    def ask(self) -> None:
        """Have it ask at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        with contextlib.suppress(OSError):
            self._process.terminate()


def start_poller(signal: LiveSignal) -> Poller | None:
    """Start a process that polls for ``signal``; None where that cannot be done.

    What the process needs (the signal's spec, which holds no secret) goes through a pipe; the credential it reads from
    the environment or the file itself.
    """
    spec = signal.spec()
    if spec is None or not sys.executable or spec["class_path"].startswith("__main__."):
        return None
    order = {"spec": spec, "limits": asdict(signal.limits), "cache": str(signal.cache.folder), "parent": os.getpid()}
    # modules are found where this process finds them; numpy needs no threads for this
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    try:
        process = subprocess.Popen(
            [sys.executable, "-c", _START],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment | {"OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
        )
        assert process.stdin is not None
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    except (OSError, ValueError, TypeError):  # no process may be started, or it died at once
        return None
    return Poller(process)


def main() -> None:
    """Poll until standard input ends; a line of it means to ask at once."""
    from lightning_green.grid.live.cache import Cache
    from lightning_green.grid.live.signal import LiveSignal
    from lightning_green.grid.spec import grid_from_spec

    signals.signal(signals.SIGINT, signals.SIG_IGN)  # Ctrl-C is for the training, which then closes the pipe
    with contextlib.suppress(OSError):
        os.nice(19)  # it has all the time in the world
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever else prints must not get into the messages
    order = json.loads(sys.stdin.buffer.readline())
    signal = grid_from_spec(order["spec"])
    assert isinstance(signal, LiveSignal)
    signal.limits, signal.cache = Limits(**order["limits"]), Cache(Path(order["cache"]))
    wake = threading.Event()

    def listen() -> None:
        while sys.stdin.buffer.readline():
            wake.set()
        os._exit(0)  # also out of the middle of a request

    threading.Thread(target=listen, daemon=True).start()
    force = False
    try:
        signal.remember()
        signal.message(asked=False).write(out)
        while os.getppid() == order["parent"]:
            wait = signal.poll_once(force=force)
            signal.message(asked=True).write(out)
            force = wake.wait(wait)
            wake.clear()
    except BrokenPipeError:
        os._exit(0)
