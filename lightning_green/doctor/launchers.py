"""Launchers: what would restart a training that is started here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from lightning_green.doctor.finding import Finding
from lightning_green.supervisor.launchers.detection import detect_launchers, who_restarts
from lightning_green.supervisor.launchers.local import allocation

SECTION = "Restarts"
_START = "lightning-green run -- python train.py"


def examine_launchers(environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield what restarts a training after a planned exit, and what keeps its devices allocated meanwhile.

    Args:
        environ: Environment variables.

    """
    names = [launcher.name for launcher in detect_launchers(environ)]
    restarter = who_restarts(environ)
    if restarter is not None:
        yield Finding(SECTION, "restart", "ok", f"{restarter} restarts a training after a planned exit")
    else:
        here = f"{' and '.join(names)} does not restart" if names else "nothing restarts"
        text = f"{here} a training after a planned exit, so a training pauses in process only"
        yield Finding(SECTION, "restart", "limited", text, f"start the training with: {_START}")
    kept = allocation(environ)
    if kept is not None:
        text = f"{kept} keeps the devices during an exit, so an exit saves less"
        remedy = "start lightning-green run outside of the allocation, for example: lightning-green run -- srun ..."
        yield Finding(SECTION, "allocation", "limited", text, remedy)
