"""Submission of the batch script of a SLURM job again, where SLURM does not requeue the job itself."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from lightning_green.supervisor.launchers.slurm_job import SLURMJob, call, start_time

RESUBMITTED_VARIABLE = "LIGHTNING_GREEN_RESUBMITTED"
"""Id of the job whose script was submitted again; only in the environment of the new job."""
_OPTIONS = {
    "JobName": "job-name",
    "Partition": "partition",
    "Account": "account",
    "QOS": "qos",
    "Reservation": "reservation",
    "TimeLimit": "time",
    "NumNodes": "nodes",
    "NumTasks": "ntasks",
    "CPUs/Task": "cpus-per-task",
    "MinMemoryNode": "mem",
    "MinMemoryCPU": "mem-per-cpu",
    "Features": "constraint",
    "ExcNodeList": "exclude",
    "ReqNodeList": "nodelist",
    "Licenses": "licenses",
    "WorkDir": "chdir",
    "StdOut": "output",
    "StdErr": "error",
}
"""Options of ``sbatch`` by the field of ``scontrol show job`` that contains their value."""
_GPU_OPTIONS = {"TresPerJob": "gpus", "TresPerTask": "gpus-per-task", "TresPerSocket": "gpus-per-socket"}
"""The same for the fields that request GPUs. In ``TresPerNode``, all generic resources are read."""
_GPUS = re.compile(r"gres[:/]gpu(?:[:=](.*))?")


def resubmit(job_id: str, job: SLURMJob, begin: float, environment: Mapping[str, str] = os.environ) -> str:
    """Submit the batch script of a job again, with its arguments, options and environment; return the new job's id.

    The new job starts after the end of this one. The options are those of this job, whether they are lines of its
    script or were given to ``sbatch``. SLURM keeps the arguments of the script as one line, so an argument with a space
    becomes two.

    Args:
        job_id: Id of the job for ``scontrol``.
        job: The job.
        begin: Earliest time of the start, in seconds since the epoch.
        environment: Environment variables of this job.

    Raises:
        SLURMError: If the script cannot be read or submitted.

    """
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "job.sh"
        call(["scontrol", "write", "batch_script", job_id, str(script)])
        own = {name: text for name, text in environment.items() if name == "SLURM_CONF" or not name.startswith("SLURM")}
        own[RESUBMITTED_VARIABLE] = job_id
        dependency = f"--dependency=afterany:{job_id}"  # `singleton` would also wait for other jobs of the same name
        options = ["--parsable", f"--begin={start_time(begin)}", dependency, *_options(job)]
        if task := environment.get("SLURM_ARRAY_TASK_ID"):
            options.append(f"--array={task}")
        words = [*options, str(script), *_arguments(job)]
        new = call(["sbatch", *words], environment=own).strip().partition(";")[0]
    return f"{new}_{task}" if task else new


def _options(job: SLURMJob) -> Iterator[str]:
    for field, option in _OPTIONS.items():
        value = job.fields.get(field)
        if value is not None and not (field.startswith("MinMemory") and value == "0"):
            yield f"--{option}={value}"
    per_node = job.fields.get("NtasksPerN:B:S:C", "0").partition(":")[0]
    if per_node.isdigit() and per_node != "0":
        yield f"--ntasks-per-node={per_node}"
    yield from _generic_resources(job)
    if not job.may_requeue:
        yield "--no-requeue"
    yield "--open-mode=append"


def _generic_resources(job: SLURMJob) -> Iterator[str]:
    for resource in job.fields.get("TresPerNode", "").split(","):
        if resource.startswith(("gres:", "gres/")):
            yield f"--gres={resource[5:].replace('=', ':')}"
    for field, option in _GPU_OPTIONS.items():
        found = [one for resource in job.fields.get(field, "").split(",") if (one := _GPUS.fullmatch(resource))]
        if found:
            yield f"--{option}={','.join((one[1] or '1').replace('=', ':') for one in found)}"


def why_not_resubmitted(job: SLURMJob) -> str | None:
    """Return why a new job would lack devices of this one, as a clause and a remedy; None if it would not.

    Examples:
        >>> why_not_resubmitted(SLURMJob({"AllocTRES": "cpu=8,gres/gpu=4", "TresPerJob": "gres/gpu:4"}))
        >>> why_not_resubmitted(SLURMJob({"AllocTRES": "cpu=8,gres/gpu=4"}))[:40]
        'a new job would lack its GPUs (gres/gpu='

    """
    allocated = (job.fields.get("AllocTRES") or job.fields.get("TRES", "")).split(",")
    gpus = next((one for one in allocated if one.startswith("gres/gpu")), None)
    if gpus is None or any("gpu" in option for option in _generic_resources(job)):
        return None
    return f"a new job would lack its GPUs ({gpus}), which no known option requests. Request them with --gres=gpu:N."


def _arguments(job: SLURMJob) -> list[str]:
    """Return the arguments of the batch script; none for a script given by ``--wrap`` or on the standard input."""
    return job.fields.get("Command", "").split()[1:]
