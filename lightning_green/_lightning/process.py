"""The processes and devices of one training, as Lightning's launcher and accelerator set them up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from lightning_green._lightning.namespaces import both
from lightning_green._lightning.replaced import replace_method


def process_group_timeout(trainer: pl.Trainer) -> timedelta | None:
    """Return the timeout of Lightning's process group; None for the default of torch."""
    timeout: timedelta | None = getattr(trainer.strategy, "_timeout", None)
    return timeout


def process_group_store() -> Any:
    """Return the store through which the processes of a training have found each other; None without several."""
    return dist.distributed_c10d._get_default_store() if dist.is_initialized() else None


def is_spawned(trainer: pl.Trainer) -> bool:
    """Return whether Lightning has started this process with ``ddp_spawn``, ``ddp_fork`` or in a notebook.

    The process of the script then waits for a result of the first process that it started, unless that fails.
    """
    return isinstance(trainer.strategy.launcher, both(_MultiProcessingLauncher))


def send_to_script(trainer: pl.Trainer, value: object) -> None:
    """Send an object to the process of the script with the results of a fit; only from a spawned process.

    The process of the script unpickles it after the fit and drops it.
    """
    if not is_spawned(trainer):
        return
    launcher = trainer.strategy.launcher
    results = launcher.get_extra_results  # type: ignore[union-attr]
    replace_method(launcher, "get_extra_results", lambda of: {**results(of), "lightning_green": value})


def after_environment(trainer: pl.Trainer, call: Callable[[], None]) -> None:
    """Call a function once when the process group of a fit exists, before the barrier that precedes ``setup``."""
    strategy = trainer.strategy
    setup_environment = strategy.setup_environment

    def setup_and_call() -> None:
        undo()
        setup_environment()
        call()

    undo = replace_method(strategy, "setup_environment", setup_and_call)


def report_exceptions(trainer: pl.Trainer, report: Callable[[BaseException], None]) -> Callable[[], None]:
    """Call ``report`` with an exception that ends a fit in a spawned process, where Lightning calls no hook.

    Returns:
        A function that undoes it.

    """
    if not is_spawned(trainer):
        return lambda: None
    run_stage = trainer._run_stage

    def run_and_report() -> object:
        try:
            return run_stage()
        except BaseException as exception:
            report(exception)
            raise

    return replace_method(trainer, "_run_stage", run_and_report)


def early_global_rank(trainer: pl.Trainer) -> int:
    """Return the global rank, also in spawned processes whose strategy does not have it yet."""
    if is_spawned(trainer):
        return trainer.node_rank * trainer.num_devices + trainer.local_rank
    return trainer.global_rank


def stop_other_ranks(trainer: pl.Trainer) -> None:
    """Stop the processes that this process has started for the other ranks; nothing in a process started for a rank."""
    launcher = trainer.strategy.launcher
    if launcher is not None and not is_spawned(trainer):
        launcher.kill(int(signal.SIGTERM))


def gpus_of_job(trainer: pl.Trainer) -> list[str] | None:
    """Return the GPUs of this node that the Trainer uses, as ``CUDA_VISIBLE_DEVICES`` names them; None without GPUs."""
    if trainer.strategy.root_device.type != "cuda":
        return None
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return [visible[index] if visible else str(index) for index in trainer.device_ids]
