"""NVIDIA GPUs of the job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from lightning_green.doctor.finding import Finding
from lightning_green.doctor.torch_build import cuda_of_torch
from lightning_green.energy.gpus import VISIBLE, Gpu, describe_nvml_error, job_gpus, open_nvml
from lightning_green.energy.nvml import unreadable_gpus

SECTION = "GPUs"
_DRIVER = Path("/proc/driver/nvidia/version")


def examine_gpus() -> Iterator[Finding]:
    """Yield each GPU of the job, with its energy counter, and whether PyTorch can use it."""
    nvml, reason = open_nvml()
    if nvml is None:
        if _DRIVER.exists():
            remedy = "in a container, start it with --gpus all; otherwise reinstall the driver and reboot"
            yield Finding(SECTION, "driver", "no", f"the NVIDIA driver does not respond ({reason})", remedy)
        else:
            yield Finding(SECTION, "none", "ok", "no NVIDIA driver was found; training uses the CPU")
        return
    try:
        gpus, notes = job_gpus(nvml)
        for gpu in gpus:
            yield _examine_gpu(nvml, gpu)
        for note in notes:
            yield Finding(SECTION, "names", "limited", note, f"correct or unset {VISIBLE}")
        if not gpus and not notes:
            yield Finding(SECTION, "none", "ok", f"the job has no GPU, by {VISIBLE}; training uses the CPU")
        elif gpus:
            yield _examine_cuda(nvml)
    except nvml.NVMLError as error:
        remedy = "see nvidia-smi, and reboot if it fails too"
        yield Finding(SECTION, "driver", "no", describe_nvml_error(error), remedy)
    finally:
        nvml.nvmlShutdown()


def _examine_gpu(nvml: ModuleType, gpu: Gpu) -> Finding:
    name, memory = f"GPU {gpu.index}", ""
    with suppress(nvml.NVMLError):
        memory = f", {nvml.nvmlDeviceGetMemoryInfo(gpu.handle).total / 2**30:.0f} GiB"
    problem = unreadable_gpus([gpu.uuid]) if gpu.share == 1.0 else None
    if gpu.share < 1.0:
        text = f"{gpu.model}{memory}: a MIG instance, which has no energy counter and no settings of its own"
        return Finding(SECTION, name, "limited", text, "request a whole GPU to measure and throttle it")
    if problem is not None:
        return Finding(SECTION, name, "limited", f"{gpu.model}{memory}: {problem}", "request a whole GPU, or --meter W")
    return Finding(SECTION, name, "ok", f"{gpu.model}{memory}, with an energy counter")


def _examine_cuda(nvml: ModuleType) -> Finding:
    built = cuda_of_torch()
    if built is None:
        remedy = "install a CUDA build of PyTorch: https://pytorch.org/get-started/locally"
        return Finding(SECTION, "CUDA", "no", "the installed PyTorch has no CUDA, so it does not use the GPUs", remedy)
    try:
        version = nvml.nvmlSystemGetCudaDriverVersion()
    except nvml.NVMLError as error:
        return Finding(SECTION, "CUDA", "limited", f"PyTorch uses CUDA {built}; {describe_nvml_error(error)}", None)
    driver = f"{version // 1000}.{version % 1000 // 10}"
    if int(built.partition(".")[0]) > version // 1000:
        text = f"PyTorch uses CUDA {built}, and the driver supports CUDA {driver} at most"
        remedy = f"update the NVIDIA driver, or install a PyTorch for CUDA {version // 1000}"
        return Finding(SECTION, "CUDA", "no", text, remedy)
    return Finding(SECTION, "CUDA", "ok", f"PyTorch uses CUDA {built}; the driver supports {driver}")
