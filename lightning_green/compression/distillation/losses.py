"""Losses between a student and a teacher: pure functions of outputs or of features.

Logits have the shape ``(samples, classes)`` or ``(samples, classes, ...)`` with classes along dimension 1.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

OUTPUT_LOSSES = ("standardized", "soft_targets", "decoupled", "relational")
FEATURE_LOSSES = ("hint", "attention")
_SMALL = 1e-7


def soft_targets(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    r"""Return ``T^2 \, KL(\mathrm{softmax}(z_t / T) \,\|\, \mathrm{softmax}(z_s / T))``, the mean over samples.

    Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2.

    Args:
        student: Logits.
        teacher: Logits of the same shape.
        temperature: T.

    """
    student, teacher = _rows(student), _rows(teacher)
    log_p = functional.log_softmax(student.float() / temperature, 1)
    q = functional.softmax(teacher.float() / temperature, 1)
    return functional.kl_div(log_p, q, reduction="batchmean") * temperature**2


def standardized(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Tensor:
    """Return ``soft_targets`` of logits with mean 0 and standard deviation 1 in each sample.

    Sun et al., "Logit Standardization in Knowledge Distillation" (arXiv 2403.01427), equation 12. A small
    student does not have to match the range of its teacher's logits.

    Args:
        student: Logits.
        teacher: Logits of the same shape.
        temperature: The base temperature.

    """

    def standard(logits: Tensor) -> Tensor:
        logits = logits.float()
        return (logits - logits.mean(1, keepdim=True)) / (logits.std(1, keepdim=True) + _SMALL)

    return soft_targets(standard(_rows(student)), standard(_rows(teacher)), temperature)


def decoupled(
    student: Tensor, teacher: Tensor, target: Tensor, temperature: float = 4.0, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """Return the weighted sum of a loss of the target class and a loss of all other classes.

    Zhao et al., "Decoupled Knowledge Distillation" (arXiv 2203.08679), equation 7.

    Args:
        student: Logits.
        teacher: Logits of the same shape.
        target: Class of each sample.
        temperature: T.
        alpha: Weight of the loss of the target class.
        beta: Weight of the loss of the other classes.

    """
    student, teacher = _rows(student).float() / temperature, _rows(teacher).float() / temperature
    is_target = functional.one_hot(target.reshape(-1), student.shape[1]).bool()

    def pair(logits: Tensor) -> Tensor:
        p = functional.softmax(logits, 1)[is_target].clamp(_SMALL, 1 - _SMALL)
        return torch.stack([p, 1 - p], 1)

    about_target = functional.kl_div(pair(student).log(), pair(teacher), reduction="batchmean")
    others = [logits.masked_fill(is_target, -1e4) for logits in (student, teacher)]
    about_others = functional.kl_div(
        functional.log_softmax(others[0], 1), functional.softmax(others[1], 1), reduction="batchmean"
    )
    return (alpha * about_target + beta * about_others) * temperature**2


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared distance of features; Romero et al., "FitNets" (arXiv 1412.6550), equation 3.

    Args:
        student: Features with the teacher's number of channels. Maps of another size are average-pooled to the
            teacher's size.
        teacher: Features.

    """
    return functional.mse_loss(_resized(student, teacher).float(), teacher.float())


def attention(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the squared distance of attention maps: the normalized mean over channels of squared activations.

    Zagoruyko and Komodakis, "Paying More Attention to Attention" (arXiv 1612.03928), equation 2.

    Args:
        student: Feature maps ``(samples, channels, ...)``.
        teacher: Feature maps, with any number of channels. The student's maps are average-pooled to their size.

    """

    def attend(features: Tensor) -> Tensor:
        return functional.normalize(features.float().square().mean(1).flatten(1), dim=1)

    return (attend(_resized(student, teacher)) - attend(teacher)).square().mean()


def relational(student: Tensor, teacher: Tensor, distance: float = 25.0, angle: float = 50.0) -> Tensor:
    """Return the difference of the distances and angles between the samples of a batch.

    Park et al., "Relational Knowledge Distillation" (arXiv 1904.05068), equations 5 and 8, with the weights of the
    paper's experiments.

    Args:
        student: Vectors, ``(samples, ...)``.
        teacher: Vectors of any length.
        distance: Weight of distances.
        angle: Weight of angles.

    """
    ours, theirs = student.float().flatten(1), teacher.float().flatten(1)
    by_distance = functional.smooth_l1_loss(_distances(ours), _distances(theirs))
    by_angle = functional.smooth_l1_loss(_angles(ours), _angles(theirs))
    return distance * by_distance + angle * by_angle


def _distances(vectors: Tensor) -> Tensor:
    squared = (vectors[:, None] - vectors[None]).square().sum(2)
    apart = squared > 0
    # The gradient of sqrt(0) is infinite.
    lengths = torch.where(apart, squared, torch.ones_like(squared)).sqrt() * apart
    return lengths / (lengths.sum() / apart.sum().clamp(min=1) + _SMALL)


def _angles(vectors: Tensor) -> Tensor:
    directions = functional.normalize(vectors[None] - vectors[:, None], dim=2)
    return torch.bmm(directions, directions.transpose(1, 2)).flatten()


def _rows(logits: Tensor) -> Tensor:
    """Return logits as (samples, classes). Positions of dense predictions count as samples."""
    return logits if logits.dim() == 2 else logits.movedim(1, -1).flatten(0, -2)


def _resized(features: Tensor, like: Tensor) -> Tensor:
    if features.dim() == 4 and features.shape[2:] != like.shape[2:]:
        size = (int(like.shape[2]), int(like.shape[3]))
        return functional.adaptive_avg_pool2d(features, size)
    return features
