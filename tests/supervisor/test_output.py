"""The relay of a command's output: what it copies, and what it hides from the command."""

import fcntl
import os
import struct
import subprocess
import sys
import termios
import time
from contextlib import contextmanager

import pytest

from lightning_green.supervisor import output as output_module
from lightning_green.supervisor.output import Output
from lightning_green.supervisor.signals import Signals


@contextmanager
def descriptors(**replaced):
    """Replace the descriptors 1 and 2 of this process for a time."""
    numbers = {"out": 1, "err": 2}
    saved = {name: os.dup(number) for name, number in numbers.items()}
    for name, other in replaced.items():
        os.dup2(other, numbers[name])
    try:
        yield
    finally:
        for name, number in numbers.items():
            os.dup2(saved[name], number)
            os.close(saved[name])


def run(home, script):
    """Run a script with an output; return its exit code and its last error output."""
    output = Output(home)
    with subprocess.Popen([sys.executable, "-c", script], stdout=output.stdout, stderr=output.stderr) as process:
        output.started()
        code = process.wait(60)
    return code, output.end()


def drain(reader):
    data = b""
    while part := os.read(reader, 65536):
        data += part
    return data


def test_output_is_copied_and_errors_are_kept(tmp_path):
    out, err = os.pipe(), os.pipe()
    script = "import os; os.write(1, b'a' * 30000); os.write(2, b'b' * 30000)"
    with descriptors(out=out[1], err=err[1]):
        code, tail = run(tmp_path, script)
    os.close(out[1])
    os.close(err[1])
    assert code == 0
    assert drain(out[0]) == b"a" * 30000
    assert drain(err[0]) == b"b" * 30000
    assert tail == "b" * 30000 == (tmp_path / "stderr.log").read_text()
    assert (tmp_path / "stderr.log").stat().st_mode & 0o777 == 0o600


def test_only_the_end_of_a_long_error_output_is_returned(tmp_path):
    with descriptors(err=os.open(os.devnull, os.O_WRONLY)):
        _, tail = run(
            tmp_path, "import os; [os.write(2, b'x' * 99 + b'\\n') for _ in range(3000)]; os.write(2, b'end')"
        )
    assert tail.endswith("x\nend")
    assert len(tail) == 65536


def test_writers_do_not_notice_that_the_reader_has_ended(tmp_path):
    out = os.pipe()
    os.close(out[0])
    script = "import time\nfor _ in range(20): print('x' * 9000, flush=True); time.sleep(0.01)"
    with descriptors(out=out[1], err=out[1]):
        code, tail = run(tmp_path, script)
    os.close(out[1])
    assert (code, tail) == (0, "")


def test_terminal_stays_a_terminal_of_the_same_size_until_it_is_closed(tmp_path):
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", 33, 77, 0, 0))
    script = (
        "import os, sys, time\nprint(os.isatty(1), os.isatty(2), os.get_terminal_size(1), flush=True)\n"
        f"while not os.path.exists({str(tmp_path / 'closed')!r}): time.sleep(0.01)\n"
        "for _ in range(20): print('x' * 900, flush=True); time.sleep(0.01)\nsys.exit(5)"
    )
    with descriptors(out=slave, err=slave):
        output = Output(tmp_path)
    os.close(slave)
    with subprocess.Popen([sys.executable, "-c", script], stdout=output.stdout, stderr=output.stderr) as process:
        output.started()
        line = b""
        while not line.endswith(b"\n"):  # it may arrive in pieces
            line += os.read(master, 1000)
        os.close(master)
        (tmp_path / "closed").touch()
        assert process.wait(60) == 5
    assert line == b"True True os.terminal_size(columns=77, lines=33)\r\n"
    assert output.end() == ""


def test_output_into_a_file_is_not_relayed(tmp_path):
    with open(tmp_path / "out.txt", "wb") as file, descriptors(out=file.fileno()):
        assert Output(tmp_path).stdout is None


@pytest.mark.parametrize("place", ["/dev/full", "/a/directory/that/is/missing/stderr.log"])
def test_full_disk_or_missing_directory_does_not_reach_the_command(tmp_path, monkeypatch, place):
    monkeypatch.setattr(output_module, "ERROR_FILE", place)
    code, tail = run(tmp_path, "import sys; sys.stderr.write('error\\n'); sys.stderr.flush(); sys.exit(3)")
    assert (code, tail) == (3, "error\n")


def test_error_file_is_renamed_when_it_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(output_module, "ERROR_BYTES", 1000)
    script = "import os, time\nfor n in range(30): os.write(2, b'%099d\\n' % n); time.sleep(0.005)"
    with descriptors(err=os.open(os.devnull, os.O_WRONLY)):
        run(tmp_path, script)
    kept = [(tmp_path / name).read_bytes() for name in ("stderr.log.1", "stderr.log")]
    assert all(0 < len(content) <= 1000 for content in kept)
    numbers = [int(line) for line in b"".join(kept).splitlines()]
    assert numbers == list(range(30 - len(numbers), 30))
    assert len(list(tmp_path.glob("stderr.log*"))) == 2


def test_symbolic_link_in_place_of_the_error_file_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "stderr.log").symlink_to(tmp_path / "precious")
    assert run(tmp_path, "import sys; sys.stderr.write('error')") == (0, "error")
    assert (tmp_path / "precious").read_text() == "precious"


def test_process_in_the_background_does_not_delay_the_end_and_keeps_its_reader(tmp_path):
    script = (
        "import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', 'import sys, time; time.sleep(3);"
        "sys.stderr.write(\"later\")'])\nsys.stderr.write('now')"
    )
    began = time.monotonic()
    assert run(tmp_path, script) == (0, "now")
    assert time.monotonic() - began < 2.5
    while (tmp_path / "stderr.log").read_text() != "nowlater":
        assert time.monotonic() - began < 60.0
        time.sleep(0.05)


def test_relay_ignores_signals_to_all_processes_of_a_job(tmp_path):
    output = Output(tmp_path)
    relay = output._relay.pid
    script = (
        f"import os, signal, sys, time\nsys.stderr.write('a'); sys.stderr.flush(); time.sleep(0.5)\n"
        f"for name in ('SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR1'): os.kill({relay}, getattr(signal, name))\n"
        "sys.stderr.write('b')"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=output.stdout, stderr=output.stderr) as process:
        output.started()
        assert process.wait(60) == 0
    assert output.end() == "ab"


def test_a_process_with_many_open_files_can_start_a_command(tmp_path):
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with Signals() as signals, descriptors(err=os.open(os.devnull, os.O_WRONLY)):
            assert run(tmp_path, "import sys; sys.stderr.write('error')") == (0, "error")
            assert not signals.wait(0.01)
    finally:
        for file in files:
            os.close(file)
