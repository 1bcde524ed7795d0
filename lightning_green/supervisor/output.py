"""The output of a command: copied by a process that does not fail where the command would."""

from __future__ import annotations

import fcntl
import os
import select
import stat
import struct
import subprocess
import sys
import termios
import tty
from contextlib import suppress
from pathlib import Path

from lightning_green.supervisor import relay_process

ERROR_FILE = "stderr.log"
ERROR_BYTES = 10_000_000
"""Size at which the file is renamed to ``stderr.log.1``, over the one before."""
ANSWER_SECONDS = 10.0


class Output:
    """Receives the output of one process of a command and copies it.

    A training that writes to a terminal that was closed, or to a pipe whose reader has ended, would fail. It writes to
    a relay instead, which continues when it cannot copy, and when the supervisor is killed. Terminals stay terminals,
    and output into a file is not relayed. The error output is also kept in ``stderr.log``.

    Args:
        home: Directory of the runs of the command.

    Attributes:
        stdout: Descriptor for the output of the command; None if it inherits that of the supervisor.
        stderr: Descriptor for its error output.

    """

    def __init__(self, home: Path) -> None:
        self._streams: list[tuple[int, int]] = []
        self.stdout = self._open(1) if _may_close(1) else None
        self.stderr = self._open(2)
        arguments = [str(home / ERROR_FILE), str(ERROR_BYTES), *(f"{source}:{to}" for source, to in self._streams)]
        self._relay = subprocess.Popen(
            [sys.executable, "-I", "-S", relay_process.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[one for pair in self._streams for one in pair],
            start_new_session=True,
        )
        for source, target in self._streams:
            os.close(source)
            os.close(target)

    def _open(self, number: int) -> int:
        """Return what the command writes to in place of a descriptor of the supervisor."""
        target = _duplicate(number)
        if os.isatty(target):
            source, writer = os.openpty()
            tty.setraw(writer)  # the terminal itself translates the ends of lines
            with suppress(OSError):
                fcntl.ioctl(writer, termios.TIOCSWINSZ, fcntl.ioctl(target, termios.TIOCGWINSZ, struct.pack("8x")))
        else:
            source, writer = os.pipe()
        self._streams.append((source, target))
        return writer

    def started(self) -> None:
        """Leave the output to the command, which has started or could not be started."""
        for number in (self.stdout, self.stderr):
            if number is not None:
                os.close(number)

    def end(self) -> str:
        """Return the last error output of a process that has ended; what others write later is still copied."""
        assert self._relay.stdin is not None
        assert self._relay.stdout is not None
        self._relay.stdin.close()
        answer, pipe = b"", self._relay.stdout
        poll = select.poll()  # `select.select` refuses descriptors above 1023
        poll.register(pipe, select.POLLIN)
        while poll.poll(ANSWER_SECONDS * 1000.0):
            data = os.read(pipe.fileno(), relay_process.CHUNK)
            if not data:
                break
            answer += data
        pipe.close()
        with suppress(subprocess.TimeoutExpired):  # it waits for a process in the background
            self._relay.wait(0.1)
        return answer.decode(errors="replace")


def _may_close(number: int) -> bool:
    """Return whether a descriptor is a pipe or a terminal, which may lose its reader, or is closed."""
    try:
        kind = os.fstat(number).st_mode
    except OSError:
        return True
    return os.isatty(number) or stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)


def _duplicate(number: int) -> int:
    try:
        return os.dup(number)
    except OSError:  # it is closed
        return os.open(os.devnull, os.O_WRONLY)
