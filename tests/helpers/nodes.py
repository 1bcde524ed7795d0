"""Two nodes on one machine, each started by a torchrun of its own."""

import socket
import sys
from contextlib import ExitStack

from tests.helpers.processes import ROOT, Process


def two_torchruns(script, folder, *arguments, devices=1, before=(), **variables):
    """Run a script on two nodes; return the exit codes of both and what they told.

    Args:
        script: Path of the script within the project.
        folder: Its first argument, and where the output goes.
        arguments: Its other arguments.
        devices: Processes on each node.
        before: What stands before the command of the second node.
        variables: Environment variables.

    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables |= {"GLOO_SOCKET_IFNAME": "lo"}
    with ExitStack() as both:
        nodes = []
        for node in (0, 1):
            line = [sys.executable, "-m", "torch.distributed.run", "--nnodes", 2, "--node_rank", node]
            line += ["--nproc_per_node", devices, "--master_addr", "127.0.0.1", "--master_port", port]
            line = [*(before if node else ()), *line, ROOT / script, folder, *arguments]
            nodes.append(both.enter_context(Process(line, folder / f"node{node}", **variables)))
        codes = [node.wait(240) for node in nodes]
        return codes, "\n".join(node.told for node in nodes)
