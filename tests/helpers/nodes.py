"""Two nodes on one machine, each started by a torchrun of its own."""

import socket
import sys
from contextlib import ExitStack

from tests.helpers.processes import ROOT, Process


def two_torchruns(script, folder, *arguments, devices=1, before=(), **variables):
    """Run a script on two nodes; return the exit codes of both and what they printed.

    Args:
        script: Path of the script within the project.
        folder: Its first argument, and where the output goes.
        arguments: Its other arguments.
        devices: Processes on each node.
        before: What stands before the command of the second node.
        variables: Environment variables.

    """
    variables |= {"GLOO_SOCKET_IFNAME": "lo"}
    with ExitStack() as both:
        nodes = [
            both.enter_context(Process([*(before if node else ()), *line], folder / f"node{node}", **variables))
            for node, line in enumerate(torchruns(script, folder, *arguments, devices=devices))
        ]
        codes = [node.wait(240) for node in nodes]
        return codes, "\n".join(node.printed for node in nodes)


def torchruns(script, folder, *arguments, devices=1):
    """Return the command of each of two nodes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    job = ["--nproc_per_node", devices, "--master_addr", "127.0.0.1", "--master_port", port]
    job += [ROOT / script, folder, *arguments]
    run = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2]
    return [list(map(str, [*run, "--node_rank", node, *job])) for node in (0, 1)]
