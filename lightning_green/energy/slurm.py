"""Energy of the nodes of a SLURM job, from the accounting of SLURM."""

from __future__ import annotations

import math
import os
import re
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from typing_extensions import override

from lightning_green.energy.counter import EnergyCounter, ImplausibleReadingError
from lightning_green.energy.meter import Component, Quality
from lightning_green.energy.sampled import SampledMeter

_TIMEOUT_SECONDS = 10.0
_MAX_WATTS = 100_000.0  # upper bound for a node
_STILL_SECONDS = 600.0  # a node always draws power; some sites update the value every few minutes
_NO_PLUGIN = re.compile(r"^AcctGatherEnergyType\s*=\s*(\(null\)|(acct_gather_energy/)?none)?\s*$", re.MULTILINE)


class SlurmMeter(SampledMeter):
    """Measure the energy of the nodes of a SLURM job with the plugin of the site for energy accounting.

    The value is ``ConsumedEnergyRaw`` of ``sstat`` for the running job step: the energy of whole nodes in J, measured
    by RAPL, IPMI, or the power counters of the node. It includes other jobs on the node. Reading it needs no rights on
    the node. SLURM updates it every ``JobAcctGatherFrequency``, 30 seconds by default. In a step on several nodes, each
    node counts the mean of them.

    Without a plugin, or outside of a job, the energy is ``"unavailable"``.

    Args:
        every: Time between two samples, at least 0.1 s.

    Raises:
        ValueError: If ``every`` cannot be parsed or is shorter than 0.1 s.

    Examples:
        ```python
        EmissionsTracker(meter="slurm", grid="typical:DE")
        ```

    """

    name = "SLURM"

    def __init__(self, every: str | timedelta = "30s") -> None:
        super().__init__(every)

    @override
    def _reset(self) -> None:
        super()._reset()
        self._step, self._nodes = "", 1
        self._counter = EnergyCounter(_MAX_WATTS, still_seconds=_STILL_SECONDS)

    @override
    def _open_sensor(self) -> dict[Component, Quality]:
        job, step = os.environ.get("SLURM_JOB_ID", ""), os.environ.get("SLURM_STEP_ID", "")
        if not job.isdigit():
            self.problem = "This process is not part of a SLURM job, so SLURM does not count its energy."
            return {"other": "unavailable"}
        self._step = f"{job}.{step if step.isdigit() else 'batch'}"
        nodes = os.environ.get("SLURM_STEP_NUM_NODES", "") if step.isdigit() else ""
        self._nodes = max(1, int(nodes)) if nodes.isdigit() else 1
        with suppress(OSError, subprocess.SubprocessError):
            if _NO_PLUGIN.search(_output(["scontrol", "show", "config"])):
                self.problem = "This site has no plugin for energy accounting (AcctGatherEnergyType of SLURM is none)."
                return {"other": "unavailable"}
        self._quality = {"other": "measured"}
        # Without an answer the next samples try again, and the energy before the first answer is unknown.
        return {"other": "measured" if self._read_sensor() else "modelled"}

    @override
    def _read_sensor(self) -> dict[Component, float]:
        try:
            text = _output(["sstat", "--noheader", "--parsable2", "--format=ConsumedEnergyRaw", f"--jobs={self._step}"])
        except subprocess.CalledProcessError as error:
            self.problem = f"sstat failed for the job step {self._step} ({error.stderr.strip()[:200]})."
            return {}
        except (OSError, subprocess.SubprocessError) as error:
            self.problem = f"sstat did not answer for the job step {self._step} ({error})."
            return {}
        joules = _number(text)
        if joules is None:
            self.problem = f"sstat answered without an energy for the job step {self._step}."
            return {}
        try:
            added = self._counter.add(time.monotonic(), joules / self._nodes)
        except ImplausibleReadingError as error:
            self.problem = f"sstat answered with nonsense ({error}). The energy is unknown meanwhile."
            self._failing = {"other"}
            return {}
        self._failing = set()
        if added.estimated:
            self._mark_estimated("other")
            self.problem = "The energy counter of SLURM was reset. The energy of the gap is estimated."
        return {"other": added.joules}

    @override
    def label(self, component: Component) -> str:
        return f"{self.name}, whole node" + (f", mean of {self._nodes} nodes" if self._nodes > 1 else "")


def _output(words: Sequence[str]) -> str:
    done = subprocess.run(
        list(words), check=True, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS
    )
    return done.stdout


def _number(text: str) -> float | None:
    """Return the only number of an output; None for no number, several, or the value that means unknown."""
    try:
        number = float(text.strip())
    except ValueError:
        return None
    unknown = not math.isfinite(number) or not 0.0 <= number < 2.0**63
    return None if unknown else number
