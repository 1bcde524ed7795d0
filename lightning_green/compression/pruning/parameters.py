"""Selection of the parameters to prune."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from lightning_green.compression.patterns import matching

PRUNABLE = (nn.Linear, nn.modules.conv._ConvNd)


def plain_name(name: str) -> str:
    """Return a parameter's name without the prefix of ``torch.compile``."""
    return name.replace("_orig_mod.", "")


def prunable_parameters(
    model: nn.Module, include: Sequence[str] = (), exclude: Sequence[str] = (), frozen: bool = False
) -> dict[str, nn.Parameter]:
    """Return the parameters to prune by name, in the model's order.

    These are the weights of linear and convolutional layers, except weights that are tied to an embedding. A parameter
    that several modules share appears once, under its first name.

    Args:
        model: The model.
        include: Patterns (a parameter, a module, or a shell pattern such as ``"encoder.*.weight"``) of further
            parameters of any kind. They take precedence over ``exclude``.
        exclude: Patterns of parameters not to prune.
        frozen: Whether to return parameters that are not trained at this time as well.

    Raises:
        ValueError: If a pattern matches nothing, or there is no parameter to prune.

    """
    names: dict[int, str] = {}
    parameters: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameters[plain_name(name)] = parameter
        names[id(parameter)] = plain_name(name)
    chosen: set[str] = set()
    embedded: set[str] = set()
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if isinstance(module, PRUNABLE) and id(weight) in names:
            chosen.add(names[id(weight)])
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and id(weight) in names:
            embedded.add(names[id(weight)])
    chosen -= embedded
    chosen -= matching("exclude", exclude, list(parameters))
    chosen |= matching("include", include, list(parameters))
    trained = {name for name in chosen if parameters[name].requires_grad}
    if not parameters:
        raise ValueError(
            "There is no parameter to prune, because the model has none when callbacks are set up. Build the network "
            "in `__init__` and not in `configure_model` or `setup`."
        )
    if not trained:
        raise ValueError("There is no parameter to prune: the model has no trainable linear or convolutional weight.")
    return {name: parameter for name, parameter in parameters.items() if name in (chosen if frozen else trained)}


def measured_sparsity(parameters: dict[str, nn.Parameter]) -> dict[str, float]:
    """Return the counted fraction of zeros in each parameter by name, and in all of them under ``""``."""
    zeros = {name: int((p.detach() == 0).sum()) for name, p in parameters.items()}
    total = sum(p.numel() for p in parameters.values())
    overall = sum(zeros.values()) / total if total else 0.0
    return {"": overall} | {name: zeros[name] / p.numel() for name, p in parameters.items()}
