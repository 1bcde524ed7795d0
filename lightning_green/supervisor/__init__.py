"""Start a command again until all of its trainings have finished; launchers."""

from lightning_green.supervisor.run_directory import open_run_directory
from lightning_green.supervisor.supervisor import Supervisor

__all__ = [
    "Supervisor",
    "open_run_directory",
]
