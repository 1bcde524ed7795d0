"""Remove channels from the classifiers of torchvision and timm, and compare each with zeros in their place.

    python benchmarks/zoo.py --json

Packages that are not installed are left out. Of each of timm's modules, the first network with at most
`--most-parameters` is built. Each network has random weights and ten classes. Channels are removed from a copy until
30 % of the parameters are gone, or half of the channels if a network cannot lose as many parameters; then

    outputs     the smaller network computes, in double precision and for inputs that the removal has not seen, what a
                copy with zeros in place of the removed weights computes
    step        a step of SGD with momentum trains the smaller network

Figures:

    networks    networks that were built
    right       channels were removed, the outputs are equal, and the step was made
    left_whole  the package refused to remove channels, with a `ValueError` that contains the reason
    silent      the outputs differ, and nothing was reported
    errors      any other error
    skipped     networks with more than `--most-parameters`
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_green.compression.pruning import removable_widths, remove_channels

CLASSES = 10
TARGET, RATIO = 0.3, 0.5
TOLERANCE = 1e-6  # of the largest output


@dataclass
class Row:
    """The result of one network.

    Attributes:
        network: Its name.
        verdict: One of the figures.
        parameters: Number of its parameters.
        removed: Fraction of the parameters that was removed.
        seconds: Time of the search for removable channels and their comparison.
        why: The message of an error.

    """

    network: str
    verdict: str = "errors"
    parameters: int = 0
    removed: float = 0.0
    seconds: float = 0.0
    why: str = ""


class NormOfSome(nn.Module):
    """A layer normalization whose statistics are those of some elements; the others are zero."""

    def __init__(self, norm: nn.LayerNorm, kept: Tensor) -> None:
        super().__init__()
        self.norm, self.kept = norm, kept

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized values."""
        some = x[..., self.kept]
        scaled = (x - some.mean(-1, keepdim=True)) / (some.var(-1, correction=0, keepdim=True) + self.norm.eps).sqrt()
        only = torch.zeros(x.shape[-1], dtype=x.dtype).index_fill(0, self.kept, 1.0)
        result = scaled * only * self.norm.weight
        return result if self.norm.bias is None else result + self.norm.bias


def count_parameters(make: Callable[[], nn.Module]) -> int:
    """Return the number of parameters of a network, without memory for them where it allows that."""
    try:
        with torch.device("meta"):
            network = make()
    except Exception:  # noqa: BLE001 - some networks read their numbers while they are built
        network = make()
    return sum(p.numel() for p in network.parameters())


def networks(most: float) -> Iterator[tuple[str, Callable[[], nn.Module], int]]:
    """Yield name, constructor and image size of the networks of the installed packages."""
    if importlib.util.find_spec("torchvision") is not None:
        from torchvision import models

        for name in models.list_models(module=models):
            yield (
                f"torchvision {name}",
                lambda name=name: models.get_model(name, num_classes=CLASSES),
                (299 if name.startswith("inception") else 224),
            )
    if importlib.util.find_spec("timm") is not None:
        import timm

        def timm_parameters(name: str) -> int:
            return count_parameters(lambda: timm.create_model(name, num_classes=CLASSES))

        for module in timm.list_modules():
            name = next((name for name in timm.list_models(module=module) if timm_parameters(name) <= most), None)
            if name is not None:
                size = timm.models.get_pretrained_cfg(name)
                yield (
                    f"timm {name}",
                    lambda name=name: timm.create_model(name, num_classes=CLASSES),
                    (224 if size is None else size.input_size[-1]),
                )


def with_zeros(whole: nn.Module, kept: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of a network with zeros in place of all elements that are not kept."""
    whole = copy.deepcopy(whole)
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            if name in kept:
                mask = torch.zeros(parameter.numel(), dtype=parameter.dtype)
                mask[kept[name].flatten()] = 1
                parameter.mul_(mask.view(parameter.shape))
    for name, module in list(whole.named_modules()):
        if isinstance(module, nn.LayerNorm) and f"{name}.weight" in kept:
            parent, _, last = name.rpartition(".")
            setattr(whole.get_submodule(parent), last, NormOfSome(module, kept[f"{name}.weight"].flatten()))
    return whole


def try_network(name: str, make: Callable[[], nn.Module], size: int, most: float) -> Row:
    """Return the result of one network."""
    row = Row(name)
    torch.manual_seed(0)
    row.parameters = count_parameters(make)
    if row.parameters > most:
        row.verdict = "skipped"
        return row
    whole = make()
    smaller, example = copy.deepcopy(whole), (torch.randn(1, 3, size, size),)
    start = time.perf_counter()
    try:
        widths = removable_widths(smaller, example)
        try:
            kept = remove_channels(smaller, example, TARGET, widths=widths, parameters=row.parameters)
        except ValueError:
            ratios = dict.fromkeys(widths, RATIO)
            kept = remove_channels(smaller, example, ratios, widths=widths, parameters=row.parameters)
    except ValueError as error:
        row.verdict, row.why = "left_whole", str(error)
        return row
    row.seconds = round(time.perf_counter() - start, 1)
    row.removed = round(1 - sum(p.numel() for p in smaller.parameters()) / row.parameters, 3)
    zeroed, small = with_zeros(whole.double(), kept).eval(), copy.deepcopy(smaller).double().eval()
    with torch.no_grad():
        for _ in range(2):
            x = torch.randn(2, 3, size, size, dtype=torch.float64)
            found, expected = (output if isinstance(output, Tensor) else output[0] for output in (small(x), zeroed(x)))
            limit = TOLERANCE * float(expected.abs().max())
            if not torch.allclose(found, expected, rtol=0.0, atol=limit):
                row.verdict = "silent"
                return row
    optimizer = torch.optim.SGD(smaller.train().parameters(), 0.1, momentum=0.9)
    output = smaller(torch.randn(2, 3, size, size))
    functional.cross_entropy(output if isinstance(output, Tensor) else output[0], torch.tensor([0, 1])).backward()
    optimizer.step()
    row.verdict = "right"
    return row


def main() -> None:
    """Run the networks, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", help="names of networks, without their package")
    parser.add_argument("--most-parameters", type=float, default=30e6)
    parser.add_argument("--package", choices=("torchvision", "timm"), help="only the networks of this package")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rows = []
    for name, make, size in networks(arguments.most_parameters):
        package, _, own = name.partition(" ")
        if (arguments.package and package != arguments.package) or (arguments.only and own not in arguments.only):
            continue
        try:
            row = try_network(name, make, size, arguments.most_parameters)
        except Exception as error:  # noqa: BLE001 - counted
            row = Row(name, why=f"{type(error).__name__}: {error}")
        rows.append(row)
        print(
            f"{row.verdict:10} {row.network:36} {row.removed:6.1%} {row.seconds:6.1f} s  {row.why[:120]}",
            file=sys.stderr,
        )
    counts = Counter(row.verdict for row in rows)
    figures = {name: counts[name] for name in ("right", "left_whole", "silent", "errors", "skipped")}
    found = {"networks": len(rows) - figures["skipped"], **figures, "rows": [asdict(row) for row in rows]}
    if arguments.json:
        print(json.dumps(found))
    sys.exit(bool(figures["silent"] or figures["errors"]))


if __name__ == "__main__":
    main()
