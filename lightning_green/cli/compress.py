"""``lightning-green compress``: a smaller model from a checkpoint, with a report of its cost and effect."""

from __future__ import annotations

import copy
import importlib
import inspect
import json
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lightning_green.cli.messages import fail
from lightning_green.report.compression import warnings


def compress(
    checkpoint: Annotated[Path, typer.Argument(help="Checkpoint of the trained LightningModule.")],
    model: Annotated[str, typer.Option(help="The LightningModule: module:Class.")],
    data: Annotated[str, typer.Option(help="The LightningDataModule: module:Class.")],
    prune: Annotated[float, typer.Option(help="Fraction of the parameters to remove as channels; 0 for none.")] = 0.0,
    int8: Annotated[
        bool, typer.Option("--int8", help="End with quantization-aware training; convert to int8.")
    ] = False,
    distill: Annotated[bool, typer.Option("--distill", help="Fine-tune with the original as the teacher.")] = False,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of fine-tuning.")] = 3,
    out: Annotated[Path, typer.Option(help="Output directory.")] = Path("compressed"),
    network: Annotated[
        str | None, typer.Option(help="Dotted path of the network in the module. Default: its only child.")
    ] = None,
    model_args: Annotated[str, typer.Option(help="JSON with arguments of the model's class.")] = "{}",
    data_args: Annotated[str, typer.Option(help="JSON with arguments of the data module's class.")] = "{}",
    round_to: Annotated[int, typer.Option(min=1, help="Keep multiples of this many channels.")] = 8,
    keep_float: Annotated[list[str] | None, typer.Option(help="Pattern of modules that stay in float.")] = None,
    grid: Annotated[
        str | None, typer.Option(help="Carbon intensity in gCO2e/kWh, or a value of EmissionsTracker's `grid`.")
    ] = None,
    zone: Annotated[str | None, typer.Option(help="Zone of the grid.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the latency measurement.")] = 1,
    trust_checkpoint: Annotated[
        bool,
        typer.Option("--trust-checkpoint", help="Load a checkpoint with other objects than tensors: it may run code."),
    ] = False,
) -> None:
    """Prune, fine-tune with the original as teacher, train in fake quantization, export to ONNX and report.

    Exit codes: 0 success; 1 the model cannot be compressed with these options; 2 wrong usage.
    """
    if not (prune or int8):
        fail("Nothing to do. Pass --prune FRACTION, --int8, or both.")
    if not 0 <= prune < 1:
        fail(f"`--prune` should be a fraction in [0, 1), got {prune}.")
    if not checkpoint.exists():
        fail(f"The checkpoint {checkpoint} does not exist.")
    sys.path.insert(0, os.getcwd())  # as for `python script.py`
    arguments = _arguments("--model-args", model_args)
    module = _load_module(_class("--model", model), checkpoint, arguments, trust_checkpoint)
    datamodule = _class("--data", data)(**_arguments("--data-args", data_args))
    out.mkdir(parents=True, exist_ok=True)
    try:
        work = _Compression(module, datamodule, network, out, threads)
        report = work.run(prune, int8, distill, epochs, round_to, tuple(keep_float or ()), grid, zone)
    except ModuleNotFoundError as error:
        fail(str(error))
    except ValueError as error:
        fail(str(error), 1)
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    typer.echo(report_text(report))


def report_text(report: dict[str, Any]) -> str:
    """Return the printed table.

    Args:
        report: Content of ``report.json``.

    """
    before, after = report["before"], report["after"]
    lines = [f"{'':34}{'before':>14}{'after':>14}{'ratio':>9}"]
    for key in before:
        a, b = before[key], after[key]
        ratio = f"{b / a:9.3f}" if a else f"{'':>9}"
        lines.append(f"{key:34}{a:>14.6g}{b:>14.6g}{ratio}")
    cost = report["compression"]
    grams = "unknown (set --grid or --zone)" if cost["gco2e"] is None else f"{cost['gco2e']:.3g} gCO2e"
    kwh = "unknown" if cost["kwh"] is None else f"{cost['kwh']:.3g} kWh ({cost['quality']})"
    lines.append(f"The compression itself: {cost['seconds']:.1f} s, energy {kwh}, emissions {grams}.")
    if "agreement" in report:
        lines.append(f"int8 and fake quantization agree on the class of {report['agreement']:.2%} of the samples.")
    lines += warnings(before, after)
    lines.append(f"Model: {report['path']}")
    return "\n".join(lines)


class _Compression:
    """One run of the command."""

    def __init__(self, module: Any, datamodule: Any, network: str | None, out: Path, threads: int) -> None:
        from lightning_green.compression.network import find_network

        self.module, self.datamodule, self.path, self.out, self.threads = module, datamodule, network, out, threads
        self.network = find_network(module, network, "--network")
        self.batches: list[tuple[Any, ...]] = []

    def run(
        self,
        prune: float,
        int8: bool,
        distill: bool,
        epochs: int,
        round_to: int,
        keep_float: tuple[str, ...],
        grid: str | None,
        zone: str | None,
    ) -> dict[str, Any]:
        from lightning_green.callbacks.distillation import KnowledgeDistillation
        from lightning_green.callbacks.emissions_tracker import EmissionsTracker
        from lightning_green.callbacks.pruning import Pruning
        from lightning_green.callbacks.quantization import QuantizationAwareTraining
        from lightning_green.compression import export

        metrics = self._test(record=True)
        output = self._output_structure(int8)
        float_path = self.out / "original.onnx"
        written = export(self.network, float_path, self.batches, int8=False)
        before = self._figures(self.network, float_path, written.weight_bytes, 32) | metrics
        callbacks: list[Any] = []
        if prune:
            callbacks.append(Pruning(prune, "channels", end=0.3, model=self.path, round_to=round_to))
        qat = QuantizationAwareTraining(0.8, 0.95, self.path, keep_float) if int8 else None
        callbacks += [] if qat is None else [qat]
        if distill:
            callbacks.append(KnowledgeDistillation(copy.deepcopy(self.network), model=self.path))
        tracker = EmissionsTracker(grid=_number(grid), zone=zone)
        start = time.monotonic()
        trainer = self._trainer([*callbacks, tracker], epochs)
        trainer.fit(self.module, datamodule=self.datamodule)
        trainer.save_checkpoint(self.out / "compressed.ckpt")
        converted = self.network if qat is None else qat.convert(self.module)
        path = self.out / "compressed.onnx"
        written = export(converted, path, self.batches, int8=int8)
        seconds = time.monotonic() - start
        after = self._figures(self.network, path, written.weight_bytes, 8 if int8 else 32) | self._test_onnx(
            path, output
        )
        totals = tracker.summary()
        report: dict[str, Any] = {
            "before": before,
            "after": after,
            "compression": {
                "seconds": round(seconds, 2),
                "kwh": totals.get("energy/kwh"),
                "gco2e": totals.get("carbon/gco2e"),
                "quality": str(totals.get("energy/quality", "unavailable")),
            },
            "path": str(path),
        }
        if qat is not None:
            report["agreement"] = qat.agreement(converted, self.module, self.batches[0]).same_class
        return report

    def _trainer(self, callbacks: list[Any], epochs: int = 1) -> Any:
        import lightning.pytorch as pl

        from lightning_green._lightning.namespaces import same_package

        return same_package(self.module, pl.Trainer)(
            default_root_dir=self.out,
            max_epochs=epochs,
            accelerator="cpu",
            devices=1,
            callbacks=callbacks,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=sys.stderr.isatty(),
        )

    def _test(self, record: bool = False) -> dict[str, float]:
        """Return the module's metrics on the test data, or on the validation data if it has no test."""
        import lightning.pytorch as pl
        from lightning.pytorch.utilities.model_helpers import is_overridden

        from lightning_green._lightning.namespaces import same_package

        handle = None
        if record:

            def record_batch(network: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                inputs = self._tensors(args, kwargs)
                if len(self.batches) < 4 and len(inputs[0]) > 1:
                    self.batches.append(tuple(tensor.detach().clone() for tensor in inputs))

            handle = self.network.register_forward_pre_hook(record_batch, with_kwargs=True)
        try:
            trainer = self._trainer([])
            kind = same_package(self.module, pl.LightningModule)
            data_kind = same_package(self.module, pl.LightningDataModule)
            tests = is_overridden("test_step", self.module, kind) and is_overridden(
                "test_dataloader", self.datamodule, data_kind
            )
            evaluate = trainer.test if tests else trainer.validate
            found = evaluate(self.module, datamodule=self.datamodule, verbose=False)
        finally:
            if handle is not None:
                handle.remove()
        if record and not self.batches:
            raise ValueError("The test data should have batches of at least two samples.")
        return {key: float(value) for metrics in found for key, value in metrics.items()}

    def _output_structure(self, int8: bool) -> Any:
        """Return the structure of the network's output in tests.

        Raises:
            ValueError: If ONNX Runtime could not compute the tests after the training.

        """
        import torch

        from lightning_green.compression.network import restored_modes
        from lightning_green.compression.outputs import OutputStructure
        from lightning_green.compression.quantization.exported import export_graph, target_inputs

        inputs = tuple(tensor.clone() for tensor in self.batches[0])  # recorded in inference mode
        if int8 and target_inputs(export_graph(self.network, inputs, training=False).graph):
            raise ValueError(
                f"`--network` should be a network that computes no loss from labels in tests, because the model in "
                f"int8 has no loss, but {type(self.network).__name__} does. Call it without labels in `test_step`, or "
                "use the callbacks in a script."
            )
        with restored_modes(self.network), torch.no_grad():
            return OutputStructure(self.network.eval()(*inputs))

    def _test_onnx(self, path: Path, output: Any) -> dict[str, float]:
        """Return the module's metrics with the network's outputs computed by ONNX Runtime from a file."""
        import torch

        from lightning_green.compression import onnx_session
        from lightning_green.compression.network import replaced_forward

        session = onnx_session(path, self.threads)
        names = [value.name for value in session.get_inputs()]

        def run_file(*args: Any, **kwargs: Any) -> Any:
            tensors = self._tensors(args, kwargs)
            fed = {name: tensor.cpu().numpy() for name, tensor in zip(names, tensors, strict=True)}
            return output.restore([torch.from_numpy(value) for value in session.run(None, fed)])

        with replaced_forward(self.network, run_file):
            return self._test()

    def _tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Return the arguments of a call of the network by position."""
        from torch import Tensor

        from lightning_green.compression.inputs import canonical

        inputs = canonical(self.network, args, kwargs)
        if isinstance(inputs, dict) or not all(isinstance(value, Tensor) for value in inputs):
            raise ValueError(
                f"`--network` should be a network whose arguments are tensors, without others before them that are "
                f"omitted, but {type(self.network).__name__} is called otherwise. Use the callbacks in a script."
            )
        return inputs

    def _figures(self, network: Any, path: Path, weight_bytes: int, bits: int) -> dict[str, float]:
        from lightning_green.compression import onnx_session, profile

        one = tuple(tensor[:1] for tensor in self.batches[0])
        costs = profile(network, one)
        session = onnx_session(path, self.threads)
        fed = {value.name: tensor.numpy() for value, tensor in zip(session.get_inputs(), one, strict=True)}
        times = []
        for _ in range(30):
            start = time.perf_counter()
            session.run(None, fed)
            times.append(time.perf_counter() - start)
        return {
            "parameters": costs.parameters,
            "macs": costs.macs,
            "weight_mb": weight_bytes / 1e6,
            "latency_ms": 1e3 * min(times),
            "joules_per_answer_modelled": costs.predicted_joules(bits),
        }


def _load_module(kind: Any, checkpoint: Path, arguments: dict[str, Any], trust: bool) -> Any:
    try:
        return kind.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=not trust, **arguments)
    except (pickle.UnpicklingError, AttributeError, ImportError) as error:
        if trust:
            fail(f"{checkpoint} cannot be read: {error}.")
        fail(
            f"{checkpoint} contains objects other than tensors and plain values, such as a class among the "
            "hyperparameters, and is not loaded because that could run code. If you trust its author, pass "
            "`--trust-checkpoint`."
        )
    except (TypeError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        fail(f"{checkpoint} cannot be loaded into {kind.__name__}: {first} Pass its arguments with --model-args.")


def _class(option: str, name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not attribute:
        fail(f"`{option}` should be module:Class, got {name!r}.")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        fail(f"`{option} {name}` cannot be imported: {error}.")
    if not inspect.isclass(found):
        fail(f"`{option}` should name a class, got {name!r}.")
    return found


def _arguments(option: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        fail(f"`{option}` should be a JSON object, got {text!r} ({error}).")
    if not isinstance(found, dict):
        fail(f"`{option}` should be a JSON object, got {text!r}.")
    return found


def _number(text: str | None) -> str | float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
