"""Versions of the required packages, and the optional ones."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from lightning_green.doctor.finding import Finding
from lightning_green.doctor.torch_build import cuda_of_torch

VERSIONS, OPTIONAL = "Versions", "Optional packages"
_REQUIRED = ("torch", "lightning", "torchmetrics")
EXTRAS: dict[str, tuple[str, tuple[str, ...]]] = {
    "wandb": ("Weights & Biases", ("wandb",)),
    "tensorboard": ("TensorBoard", ("tensorboard",)),
    "carbontracker": ("the meter carbontracker", ("carbontracker",)),
    "cli": ("LightningCLI", ("jsonargparse",)),
    "compression": ("removal of channels and export to ONNX", ("torch_pruning", "onnx", "onnxscript", "onnxruntime")),
    "demo": ("figures and the demo", ("sklearn", "matplotlib")),
    "parquet": ("traces in Parquet files", ("pandas", "pyarrow")),
}
"""The extras of the package: what each is for, and the modules that it installs."""


def examine_versions() -> Iterator[Finding]:
    """Yield the versions of Python and the required packages."""
    yield Finding(VERSIONS, "python", "ok", platform.python_version())
    for name in _REQUIRED:
        found = _version(name)
        if found is None:
            remedy = "pip install --force-reinstall lightning-green"
            yield Finding(VERSIONS, name, "no", "not installed", remedy, is_required=True)
        else:
            cuda = f", CUDA {cuda_of_torch() or 'not included'}" if name == "torch" else ""
            yield Finding(VERSIONS, name, "ok", f"{found}{cuda}")
    other, lightning = _version("pytorch-lightning"), _version("lightning")
    if other is not None and lightning is not None and other != lightning:
        text = f"{other} differs from lightning {lightning}, so scripts that import pytorch_lightning fail"
        yield Finding(VERSIONS, "pytorch-lightning", "limited", text, f"pip install pytorch-lightning=={lightning}")


def examine_packages() -> Iterator[Finding]:
    """Yield the optional packages, which are found without importing them."""
    for extra, (use, modules) in EXTRAS.items():
        missing = [module for module in modules if find_spec(module) is None]
        if missing:
            remedy = f"pip install 'lightning-green[{extra}]'"
            yield Finding(OPTIONAL, extra, "no", f"{', '.join(missing)} not installed, for {use}", remedy)
        else:
            yield Finding(OPTIONAL, extra, "ok", f"installed, for {use}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
