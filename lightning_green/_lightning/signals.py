"""The signal handlers that Lightning installs for the time of a fit."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.trainer.connectors.signal_connector import _HandlersCompose, _SignalConnector

from lightning_green._lightning.namespaces import both


def pop_received_sigterm(trainer: pl.Trainer) -> bool:
    """Return whether Lightning has received a SIGTERM, and clear that: its loops would raise."""
    connector = trainer._signal_connector
    received, connector.received_sigterm = connector.received_sigterm, False
    return received


def requeue_signal(trainer: pl.Trainer) -> int | None:
    """Return the signal by which SLURM asks for a requeue; None where Lightning does not handle it."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, both(SLURMEnvironment)) and environment.auto_requeue:
        return int(environment.requeue_signal or signal.SIGUSR1)
    return None


def user_handlers(handler: Any) -> list[Callable[[int, Any], Any]]:
    """Return the handlers that the user's script registered for a signal before Lightning wrapped them in its own."""
    if not isinstance(handler, both(_HandlersCompose)):
        return [handler] if callable(handler) and handler is not signal.default_int_handler else []
    connectors = both(_SignalConnector)
    own = [one for one in handler.signal_handlers if not isinstance(getattr(one, "__self__", None), connectors)]
    return [user for one in own for user in user_handlers(one)]
