"""Export to files that other runtimes execute: ONNX, ``torch.export`` programs and ExecuTorch."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils._pytree import tree_map, tree_map_only

from lightning_green.compression.call_description import (
    CallDescription,
    DynamicSizes,
    TensorDescription,
    check_dynamic,
    shapes_of,
)
from lightning_green.compression.inputs import Inputs, as_inputs, call, tensors_of
from lightning_green.compression.network import restored_modes
from lightning_green.compression.outputs import output_tensors
from lightning_green.compression.quantization.agreement import Agreement, worst_agreement
from lightning_green.compression.quantization.int8 import int8_inputs, is_int8
from lightning_green.compression.quantization.quantized_network import quantize
from lightning_green.utilities.validation import check_choice

FORMATS = ("onnx", "torch", "executorch")
_OPSET = 21
_SAMPLES = {"onnx": (1, 2, 7), "torch": (2, 7), "executorch": ()}  # numbers with which a file is compared
_Run = Callable[[Inputs], Any]
_Tensors = Sequence[TensorDescription]


@dataclass(frozen=True)
class Exported:
    """An exported and verified file.

    Args:
        path: The file.
        weight_bytes: Size of the stored tensors in bytes.
        agreement: Agreement of the file's outputs, computed by its own runtime, with the model's.
        float_weights: Names of the weights that stay in float; empty for a model in float.

    """

    path: Path
    weight_bytes: int
    agreement: Agreement
    float_weights: tuple[str, ...] = ()


def export(
    model: nn.Module,
    path: str | Path,
    inputs: Sequence[Tensor | tuple[Any, ...] | Mapping[str, Any]] = (),
    *,
    format: str = "onnx",  # noqa: A002 - the usual name
    int8: bool = True,
    keep_float: Sequence[str] = (),
    tolerance: float = 0.1,
    dynamic: DynamicSizes | None = None,
) -> Exported:
    """Write a model to a file, run the file, and compare its outputs with the model's.

    All outputs are compared, for the given batches and for 1, 2 and 7 samples.

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
        dynamic: Dimensions of inputs that have other sizes in other calls, besides that of the samples, by the name of
            the argument, such as ``{"tokens": [1]}``. A model in int8 contains those of its callback.

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
    check_dynamic(dynamic)
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
        network, model = model, quantize(model, batches, keep_float, activation, dynamic=dynamic)
        batches = [int8_inputs(model, batch, network) for batch in batches]
    path = Path(path)
    with restored_modes(model):
        if not int8:
            model.eval()
        run, samples = _write(format, model, path, batches[0], dynamic)
        if format == "executorch":  # the sizes of the program are constant
            shapes = [tensor.shape for tensor in tensors_of(batches[0])]
            batches = [batch for batch in batches if [tensor.shape for tensor in tensors_of(batch)] == shapes]
        sized = [_resized(batches[0], samples, count) for count in _SAMPLES[format]] if any(samples) else []
        results = []
        with torch.no_grad():
            for compared in filter(None, (batches, sized)):
                outputs = _outputs(run, compared, path.name)
                results.append(worst_agreement(outputs, [call(model, batch) for batch in compared]))
                results[-1].require(tolerance, path.name, "the exported model")
    size = weight_bytes(path) if format == "onnx" else _bytes(model)
    in_float = model.meta.get("float_weights", ()) if isinstance(model, GraphModule) and is_int8(model) else ()
    return Exported(path, size, results[0], tuple(in_float))


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


def _write(
    name: str, model: nn.Module, path: Path, inputs: Inputs, dynamic: DynamicSizes | None
) -> tuple[_Run, list[bool]]:
    """Write the file; return a function that computes it, and which tensors of the inputs have samples.

    Raises:
        ValueError: If the model cannot be exported.

    """
    write = {"onnx": _write_onnx, "torch": _write_torch, "executorch": _write_executorch}[name]
    if is_int8(model):
        assert isinstance(model, GraphModule)
        alternatives = [model.meta.get("tensors") or CallDescription.of(model, inputs).tensors]
    else:
        described = CallDescription.of(model, inputs, dynamic)
        alternatives = [one.tensors for one in described.alternatives()]
    problem: Exception | None = None
    for tensors in alternatives:
        try:
            return write(model, path, inputs, tensors), [tensor.has_samples for tensor in tensors]
        except Exception as error:  # noqa: BLE001, PERF203 - of the exporters
            problem = problem or error
    first = (str(problem).strip() or type(problem).__name__).splitlines()[0]
    raise ValueError(f"{type(model).__name__} cannot be exported to {path.name}: {first}") from problem


def _write_onnx(model: nn.Module, path: Path, inputs: Inputs, tensors: _Tensors) -> _Run:
    args, kwargs, shapes = _arguments(inputs, tensors, "batch")
    with _quiet():
        program = torch.onnx.export(
            model, args, kwargs=kwargs, dynamo=True, opset_version=_OPSET, verbose=False, dynamic_shapes=shapes
        )
    assert program is not None
    program.save(str(path), external_data=False)
    session = onnx_session(path)
    names = [value.name for value in session.get_inputs()]

    def run(batch: Inputs) -> list[Tensor]:
        fed = {name: tensor.numpy() for name, tensor in zip(names, tensors_of(batch), strict=True)}
        return [torch.from_numpy(np.asarray(output)) for output in session.run(None, fed)]

    return run


def _write_torch(model: nn.Module, path: Path, inputs: Inputs, tensors: _Tensors) -> _Run:
    # The storage of a view would be saved whole.
    cloned = tree_map_only(Tensor, torch.clone, inputs)
    args, kwargs, shapes = _arguments(cloned, tensors, torch.export.Dim.DYNAMIC)
    torch.export.save(torch.export.export(model, args, kwargs, dynamic_shapes=shapes), str(path))
    loaded = torch.export.load(str(path)).module()
    return lambda batch: call(loaded, batch)


def _write_executorch(model: nn.Module, path: Path, inputs: Inputs, tensors: _Tensors) -> _Run:
    partition = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    exir = importlib.import_module("executorch.exir")
    runtime = importlib.import_module("executorch.runtime")
    args, kwargs, _ = _arguments(inputs, tensors, "batch")
    lowered = exir.to_edge_transform_and_lower(
        torch.export.export(model, args, kwargs), partitioner=[partition.XnnpackPartitioner()]
    )
    path.write_bytes(lowered.to_executorch().buffer)
    method = runtime.Runtime.get().load_program(path).load_method("forward")
    return lambda batch: output_tensors(list(method.execute(tuple(tensors_of(batch)))))


def _arguments(inputs: Inputs, tensors: _Tensors, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any], Any]:
    """Return positional arguments, arguments by keyword, and their dynamic dimensions."""
    dimensions = iter(shapes_of(tensors, batch, torch.export.Dim.DYNAMIC))
    shapes = tree_map(lambda leaf: next(dimensions) if isinstance(leaf, Tensor) else None, inputs)
    return ((), inputs, shapes) if isinstance(inputs, dict) else (inputs, {}, shapes)


def _resized(inputs: Inputs, samples: list[bool], count: int) -> Inputs:
    """Return inputs with another number of samples, which are repeated if there are not enough."""
    has_samples = iter(samples)

    def resize(tensor: Tensor) -> Tensor:
        return tensor[torch.arange(count) % len(tensor)] if next(has_samples) else tensor

    resized: Inputs = tree_map_only(Tensor, resize, inputs)
    return resized


def _outputs(run: _Run, batches: Sequence[Inputs], file: str) -> list[Any]:
    found = []
    for batch in batches:
        try:
            found.append(run(batch))
        except Exception as error:  # noqa: PERF203 - of the runtimes
            sizes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors_of(batch))
            raise ValueError(f"{file} cannot be run with inputs of the sizes {sizes}: {error}") from error
    return found


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
