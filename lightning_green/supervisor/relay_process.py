"""Copies the output of a command to where it belongs, and never lets the command notice that this fails.

The supervisor starts this file as a process of its own, with the standard library only. It outlives the supervisor: a
training continues if its supervisor is killed, and its output must have a reader then. It ends when the last process
that may write has ended.

    python relay_process.py LOG LIMIT SOURCE:TARGET... SOURCE:TARGET

Each source is a descriptor of the pipe or terminal that the command writes to, and each target is a descriptor that its
output is copied to. The last pair is the error output, which is also appended to the file ``LOG``. At the end of its
own input, this process writes the last error output to its own output.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import sys
import termios
import threading
import time
from contextlib import suppress

CHUNK = 65536
TAIL_BYTES = 65536
DRAIN_SECONDS = 5.0
STOP_SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTSTP", "SIGTTOU")


class Log:
    """Appends to a file and renames it when it is full; a file that cannot be written is left as it is.

    Args:
        path: The file.
        limit: Size in bytes at which it is renamed to ``<path>.1``.

    """

    def __init__(self, path: str, limit: int) -> None:
        self.path, self.limit, self.file = path, limit, -1
        self._open()

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        try:
            self.file = os.open(self.path, flags, 0o600)
        except OSError:
            self.file = -1

    def write(self, data: bytes) -> None:
        """Append ``data`` if that is possible."""
        with suppress(OSError):  # a full disk, or a directory that is gone: the output is still copied
            if self.file >= 0 and os.fstat(self.file).st_size + len(data) > self.limit:
                os.close(self.file)
                os.replace(self.path, f"{self.path}.1")
                self._open()
            if self.file >= 0:
                os.write(self.file, data)


class Stream:
    """One output of the command.

    Args:
        source: Descriptor that is read.
        target: Descriptor that is written.
        log: The log of the error output, or None.

    """

    def __init__(self, source: int, target: int, log: Log | None = None) -> None:
        self.source, self.target, self.log = source, target, log
        self.tail, self.ended, self.busy = b"", False, False
        self.lock = threading.Lock()

    def copy(self) -> None:
        """Copy until the last writer has ended."""
        while not self.ended:
            wait_for(self.source, select.POLLIN)
            with self.lock:
                try:
                    data = os.read(self.source, CHUNK)
                except OSError:  # a terminal without a writer
                    data = b""
                self.ended, self.busy = not data, True
                if self.log is not None:
                    self.tail = (self.tail + data)[-TAIL_BYTES:]
                    self.log.write(data)
            self._write(data)
            self.busy = False

    def _write(self, data: bytes) -> None:
        while data and self.target >= 0:
            try:
                copy_size(self.target, self.source)
                data = data[os.write(self.target, data) :]
            except BlockingIOError:  # noqa: PERF203
                wait_for(self.target, select.POLLOUT)
            except OSError:  # nobody reads it any more: a closed pipe or terminal
                self.target = -1

    def is_copied(self) -> bool:
        """Return whether everything that was written has been copied."""
        with self.lock:
            if self.ended or self.busy:
                return not self.busy
            waiting = fcntl.ioctl(self.source, termios.FIONREAD, struct.pack("i", 0))
            return bool(struct.unpack("i", waiting)[0] == 0)


def wait_for(descriptor: int, event: int) -> None:
    """Wait until a descriptor can be read or written; ``select.select`` refuses numbers above 1023."""
    poll = select.poll()
    poll.register(descriptor, event)
    poll.poll()


def copy_size(terminal: int, other: int) -> None:
    """Give one terminal the size of another, if both are terminals."""
    with suppress(OSError):
        size = fcntl.ioctl(terminal, termios.TIOCGWINSZ, b"\0" * 8)
        if fcntl.ioctl(other, termios.TIOCGWINSZ, b"\0" * 8) != size:
            fcntl.ioctl(other, termios.TIOCSWINSZ, size)


def main(log: str, limit: str, *pairs: str) -> None:
    """Copy every pair until its writers have ended."""
    for name in STOP_SIGNALS:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    numbers = [(int(source), int(target)) for source, _, target in (pair.partition(":") for pair in pairs)]
    streams = [Stream(*pair) for pair in numbers[:-1]] + [Stream(*numbers[-1], Log(log, int(limit)))]
    threads = [threading.Thread(target=stream.copy) for stream in streams]
    for thread in threads:
        thread.start()
    while os.read(0, CHUNK):
        pass
    end = time.monotonic() + DRAIN_SECONDS
    while not all(stream.is_copied() for stream in streams) and time.monotonic() < end:
        time.sleep(0.005)
    with suppress(OSError):  # the supervisor was killed
        os.write(1, streams[-1].tail)
    os.close(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
