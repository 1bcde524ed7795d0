"""Export to files that other runtimes execute: ONNX, ``torch.export`` programs and ExecuTorch."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_map, tree_map_only

from lightning_green.compression.inputs import Inputs, as_inputs, batch_dimensions, call, tensors_of
from lightning_green.compression.network import restored_modes
from lightning_green.compression.outputs import output_tensors
from lightning_green.compression.quantization.agreement import Agreement, worst_agreement
from lightning_green.compression.quantization.int8 import int8_inputs, is_int8
from lightning_green.compression.quantization.quantized_network import quantize
from lightning_green.utilities.validation import check_choice

FORMATS = ("onnx", "torch", "executorch")
_OPSET = 21


@dataclass(frozen=True)
class Exported:
    """An exported and verified file.

    Args:
        path: The file.
        weight_bytes: Size of the stored tensors in bytes.
        agreement: Agreement of the file's outputs, computed by its own runtime, with the model's.

    """

    path: Path
    weight_bytes: int
    agreement: Agreement


def export(
    model: nn.Module,
    path: str | Path,
    inputs: Sequence[Tensor | tuple[Any, ...] | Mapping[str, Any]] = (),
    *,
    format: str = "onnx",  # noqa: A002 - the usual name
    int8: bool = True,
    keep_float: Sequence[str] = (),
    tolerance: float = 0.1,
) -> Exported:
    """Write a model to a file, run the file, and compare its outputs with the model's.

    Args:
        model: A model in int8 (from ``callback.convert`` or ``quantize``), or any
            other network.
        path: The file to write.
        inputs: Batches of inputs with at least two samples each, for the comparison and for calibration: tensors,
            tuples of positional arguments, or dictionaries of arguments by keyword. Optional for a model in int8, which
            contains example inputs.
        format: ``"onnx"``, ``"torch"`` (for ``torch.export.load``), or ``"executorch"``.
        int8: Whether to quantize a float network first.
        keep_float: Patterns of modules that stay in float when a network is quantized here.
        tolerance: Largest accepted mean difference between the file's outputs and the model's, as a fraction of the
            outputs' standard deviation. It is not zero because runtimes round ties differently.

    Returns:
        The path, its size and its agreement with the model.

    Raises:
        ModuleNotFoundError: If the packages of the format are not installed.
        TypeError: If a model in int8 should be written in float.
        ValueError: If an argument is invalid, the model cannot be exported, or the outputs of the file differ.

    Examples:
        ```python
        export(callback.convert(module), "model.onnx")          # after quantization-aware training
        export(network, "model.onnx", [images])                 # quantized with the ranges of these images
        export(network, "model.onnx", [images], int8=False)     # in float
        ```

    """
    check_choice("format", format, FORMATS)
    batches = [as_inputs(batch) for batch in inputs]
    quantized = is_int8(model)
    if quantized and not int8:
        raise TypeError("`int8` should be True for a model in int8; export the float network instead.")
    if quantized:
        batches = [int8_inputs(model, batch) for batch in batches] or [_example_inputs(model)]
    if not batches:
        raise ValueError("`inputs` should contain at least one batch, got none.")
    if format == "torch" and Path(path).suffix != ".pt2":
        raise ValueError(f"`path` should end in .pt2 with format 'torch', got {str(path)!r}.")
    _require(format)
    if not quantized and int8:
        activation = "int8" if format == "executorch" else "uint8"
        network, model = model, quantize(model, batches, keep_float, activation)
        batches = [int8_inputs(model, batch, network) for batch in batches]
    with restored_modes(model):
        if not int8:
            model.eval()
        with torch.no_grad():
            reference = [call(model, batch) for batch in batches]
        path = Path(path)
        write = {"onnx": _write_onnx, "torch": _write_torch, "executorch": _write_executorch}[format]
        outputs = write(model, path, batches)
    result = worst_agreement(outputs, reference)
    result.require(tolerance, path.name, "the exported model")
    return Exported(path, weight_bytes(path) if format == "onnx" else _bytes(model), result)


def _example_inputs(int8: nn.Module) -> Inputs:
    assert isinstance(int8, GraphModule)
    inputs: tuple[Tensor, ...] = int8.meta["inputs"]
    return inputs


def weight_bytes(path: str | Path) -> int:
    """Return the size in bytes of the tensors in an ONNX file."""
    onnx = importlib.import_module("onnx")
    total = 0
    for tensor in onnx.load(str(path)).graph.initializer:
        total += onnx.numpy_helper.to_array(tensor).nbytes
    return total


def onnx_session(path: str | Path, threads: int = 1) -> Any:
    """Return an ONNX Runtime session on the CPU.

    Args:
        path: An ONNX file.
        threads: Number of threads for one operation.

    """
    runtime = importlib.import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _require(name: str) -> None:
    packages = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch": (), "executorch": ("executorch",)}[name]
    try:
        for package in packages:
            importlib.import_module(package)
    except ModuleNotFoundError as error:
        hint = "pip install executorch" if name == "executorch" else "pip install 'lightning-green[compression]'"
        raise ModuleNotFoundError(f"`format` {name!r} needs the package {error.name}: {hint}.") from error


def _write_onnx(model: nn.Module, path: Path, batches: list[Inputs]) -> list[list[Tensor]]:
    args, kwargs, shapes = _arguments(batches[0], "batch")
    with _quiet():
        program = torch.onnx.export(
            model, args, kwargs=kwargs, dynamo=True, opset_version=_OPSET, verbose=False, dynamic_shapes=shapes
        )
    assert program is not None
    program.save(str(path), external_data=False)
    session = onnx_session(path)
    names = [value.name for value in session.get_inputs()]
    outputs = []
    for batch in batches:
        fed = {name: tensor.numpy() for name, tensor in zip(names, tensors_of(batch), strict=True)}
        outputs.append([torch.from_numpy(np.asarray(output)) for output in session.run(None, fed)])
    return outputs


def _write_torch(model: nn.Module, path: Path, batches: list[Inputs]) -> list[Any]:
    # The storage of a view would be saved whole.
    args, kwargs, shapes = _arguments(tree_map_only(Tensor, torch.clone, batches[0]), torch.export.Dim("batch", min=2))
    torch.export.save(torch.export.export(model, args, kwargs, dynamic_shapes=shapes), str(path))
    loaded = torch.export.load(str(path)).module(check_guards=False)
    return [call(loaded, batch) for batch in batches]


def _write_executorch(model: nn.Module, path: Path, batches: list[Inputs]) -> list[list[Tensor]]:
    partition = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    exir = importlib.import_module("executorch.exir")
    runtime = importlib.import_module("executorch.runtime")
    args, kwargs, _ = _arguments(batches[0], "batch")
    lowered = exir.to_edge_transform_and_lower(
        torch.export.export(model, args, kwargs), partitioner=[partition.XnnpackPartitioner()]
    )
    path.write_bytes(lowered.to_executorch().buffer)
    method = runtime.Runtime.get().load_program(path).load_method("forward")
    tensors = [tuple(tensors_of(batch)) for batch in batches]
    same = [given for given in tensors if given[0].shape == tensors[0][0].shape]  # the program's shapes are static
    return [output_tensors(list(method.execute(given))) for given in same]


def _arguments(inputs: Inputs, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Return positional arguments, arguments by keyword, and their dynamic dimensions."""
    dimensions = iter(batch_dimensions(tuple(tensors_of(inputs)), batch))
    shapes = tree_map(lambda leaf: next(dimensions) if isinstance(leaf, Tensor) else None, inputs)
    return ((), inputs, shapes) if isinstance(inputs, dict) else (inputs, {}, shapes)


def _bytes(model: nn.Module) -> int:
    return sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the messages of the exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
