"""Start codecarbon without its configuration files, its environment variables and the tools of a job scheduler."""

from __future__ import annotations

import configparser
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

MACHINE_OPTIONS = (
    "force_cpu_power",
    "force_mode_cpu_load",
    "force_ram_power",
    "rapl_include_dram",
    "rapl_prefer_psys",
)
"""Options of codecarbon's configuration that describe the machine. All others are ignored."""

_lock = threading.Lock()


def machine_options() -> tuple[dict[str, str], str | None]:
    """Return the options that describe the machine, and the reason if a configuration file is ignored."""
    from codecarbon.core import config

    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)  # it logs the names of all options
    try:
        found, problem = config.get_hierarchical_config(), None
    except (configparser.Error, OSError, ValueError) as error:  # also of a working directory that was removed
        found = config.parse_env_config()[config.CONFIG_SECTION]
        reason = (str(error).splitlines() or [""])[0]
        problem = f"codecarbon's configuration files cannot be read and are ignored ({type(error).__name__}: {reason})."
    return {name: value for name, value in found.items() if name in MACHINE_OPTIONS}, problem


@contextmanager
def isolated(options: dict[str, str]) -> Iterator[None]:
    """Let codecarbon see these options only, and no SLURM job.

    In a SLURM job, codecarbon calls ``scontrol`` without a time limit: it may hang, and containers do not have it. The
    numbers of CPUs and the memory of the whole machine are correct here, because the share of the job is computed in
    this package.
    """
    import codecarbon.emissions_tracker as tracker
    from codecarbon.core import util
    from codecarbon.external import ram

    with _lock:
        names = [(tracker, "get_hierarchical_config"), (util, "SLURM_JOB_ID"), (ram, "SLURM_JOB_ID")]
        before = [(module, name, getattr(module, name)) for module, name in names]
        tracker.get_hierarchical_config = lambda: dict(options)
        util.SLURM_JOB_ID = ram.SLURM_JOB_ID = None
        try:
            yield
        finally:
            for module, name, value in before:
                setattr(module, name, value)


def forget_slurm(hardware: Any) -> None:
    """Give codecarbon's RAM the size of the memory, which every sample would ask ``scontrol`` for in a SLURM job."""
    from codecarbon.external.hardware import B_TO_GB

    for one in hardware:
        if type(one).__name__ == "RAM":
            one.memory_size = psutil.virtual_memory().total / B_TO_GB
