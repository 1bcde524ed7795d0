"""Start a command again until it has finished; launchers."""

from lightning_green.supervisor.supervisor import Supervisor

__all__ = [
    "Supervisor",
]
