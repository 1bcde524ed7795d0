"""Running code in a process that detects network access, output, files and changed signal handlers."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]

# A connection, a packet or a name look-up raises. Importing urllib3 binds a socket to ::1, which is allowed.


GUARD = """
import json, signal, socket, sys, threading, time
opened = []
def refuse(*args, **kwargs):
    opened.append(str(args))
    raise RuntimeError("the network was used")
class Refuse(socket.socket):
    connect = connect_ex = sendto = sendmsg = refuse
socket.socket = Refuse
socket.getaddrinfo = socket.gethostbyname = socket.create_connection = refuse
handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
def state(**more):
    same = all(signal.getsignal(number) == handler for number, handler in handlers.items())
    sys.stderr.write("RESULT" + json.dumps({"opened": opened, "handlers": same, **more}))
def joules(meter):
    return {name: [energy.joules, energy.quality] for name, energy in meter.read().items()}
"""


def run_guarded(tmp_path, body, **environment):
    """Run code in a new process; check that it leaves the process, the disk and the output alone; return its result."""
    home, work = tmp_path / "home", tmp_path / "work"
    for folder in (home, work):
        folder.mkdir(exist_ok=True)
    for key, value in list(environment.items()):
        if value is None:
            environment.pop(key)
    base = {key: os.environ[key] for key in ("PATH", "LD_LIBRARY_PATH") if key in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", GUARD + textwrap.dedent(body)],
        cwd=work,
        env={**base, "HOME": str(home), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(work.iterdir()) == [], "a file was written to the working directory"
    assert done.stdout == ""
    noise, _, result = done.stderr.rpartition("RESULT")
    assert noise == "", "something was printed"
    found = json.loads(result)
    assert found["opened"] == []
    assert found["handlers"]
    return found
