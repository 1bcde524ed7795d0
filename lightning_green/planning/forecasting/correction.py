"""A forecast that is better than the one that was given: what its past errors and the recent days add to it.

For the hour ``s``, ``k`` hours ahead, with the newest forecast ``F``:

    F + b(k) B + e(k) E + y(k) (Y - F - B) + u(k) (U - F - B) + d(k) D

where ``B`` is the mean error of the last 28 days for this hour of the day and this day ahead, ``E`` what is left of the
error in the last three known hours, ``Y`` the latest known day, ``U`` the usual day (a fading mean of the last 14), and
``D`` by how much the last three known hours differ from the usual day. Without a forecast:

    U + y(k) (Y - U) + d(k) D

The weights are those of a ridge regression on the recent past that is pulled towards a prior, for each band of leads.
The prior was fitted on whole zones and tried on others (docs/planner.md); it stands alone until seven issues are past.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_green.planning.forecasting.history import Past

Array = NDArray[np.float64]
Hours = NDArray[np.int64]

DAY = 24
BANDS = (0, 1, 2, 3, 5, 8, 12, 18, 24, 30, 36, 48, 72)
"""Lower edges of the bands of leads in hours; the last one has no end."""
LONGEST_LEAD = 72
"""Leads in hours that weights are learned from."""
USUAL_DAYS, USUAL_HALF_LIFE = 14, 5.0
BIAS_DAYS = 28
BIAS_PRIOR_DAYS = 2.0
BIAS_TRUST = 0.85
RECENT_HOURS = 3
LEARN_DAYS, LEARN_HALF_LIFE = 60, 45.0
LEARN_EVERY = 3
PRIOR_DAYS = 30.0
"""How many days of experience the prior counts for."""
MIX_DAYS = 5.0
"""The same for the share of history alone, which is one number and so needs less."""
MIX_HOURS = 48
"""Hours ahead within which the share has to tell the lower hours from the higher ones."""
FEWEST_ISSUES = 7
FEWEST_DAYS = 7


@dataclass(frozen=True)
class Clues:
    """What is known at each of ``t`` decision hours about the ``k`` hours that follow.

    Args:
        known: Recorded value where the hour is known already, NaN elsewhere, shape ``(t, k)``.
        own: The newest forecast, corrected for its bias, shape ``(t, k)``; NaN where there is none.
        usual: The usual day, shape ``(t, k)``.
        parts: What is added to ``own``, each with its weight, shape ``(t, k, 4)``.
        alone: What is added to ``usual`` where there is no forecast, shape ``(t, k, 2)``.
        scale: Mean intensity of the last 14 days, shape ``(t, 1)``.

    """

    known: Array
    own: Array
    usual: Array
    parts: Array
    alone: Array
    scale: Array


def bias_table(past: Past) -> tuple[int, Array]:
    """Return the first day and the mean forecast error over the 28 days before each day, by days ahead and UTC hour.

    The shape is ``(days, days ahead, 24)``, with one day more than there are recorded ones. An error belongs to the day
    of the hour it is about. Few days of errors are pulled to zero, as by two days without one.
    """
    first = past.first // DAY
    days = (past.known_until - 1) // DAY - first + 1
    ahead = -(-past.forecasts.shape[1] // DAY)
    if not len(past.issued) or days <= 0:
        return first, np.zeros((max(days, 0) + 1, 1, DAY))
    lead = np.arange(past.forecasts.shape[1])
    hours = past.issued[:, np.newaxis] + lead
    error = past.at(hours) - past.forecasts
    there = np.isfinite(error)
    place = ((hours // DAY - first) * ahead + lead // DAY) * DAY + hours % DAY
    size = days * ahead * DAY
    total = np.bincount(place[there], error[there], size)
    count = np.bincount(place[there], minlength=size)
    mean = np.divide(total, count, out=np.zeros(size), where=count > 0).reshape(days, ahead, DAY)
    seen = (count > 0).reshape(days, ahead, DAY)
    sums = np.concatenate((np.zeros((1, ahead, DAY)), np.cumsum(mean, axis=0)))
    counts = np.concatenate((np.zeros((1, ahead, DAY)), np.cumsum(seen, axis=0)))
    start = np.maximum(0, np.arange(days + 1) - BIAS_DAYS)
    table: Array = (sums - sums[start]) / (counts - counts[start] + BIAS_PRIOR_DAYS)
    return first, table


def clues(past: Past, hours: Hours, horizon: int, lag: int) -> Clues:
    """Return what was known ``lag`` hours after the fact, at each of ``hours``, about the ``horizon`` hours ahead."""
    until = hours - lag + 1
    ahead = hours[:, np.newaxis] + np.arange(horizon)
    back = np.arange(DAY) - DAY
    days = np.arange(USUAL_DAYS + 1)
    # The last 15 known days, hour by hour: axes are decision, day (0 is the latest), hour before the end of the day.
    recent = past.at(until[:, np.newaxis, np.newaxis] + back - DAY * days[:, np.newaxis])
    latest, usual, before = recent[:, 0], _fading(recent[:, :-1]), _fading(recent[:, 1:])
    scale = _mean(recent.reshape(len(hours), -1))[:, np.newaxis]
    usual = np.where(np.isfinite(usual), usual, scale)
    before = np.where(np.isfinite(before), before, scale)
    latest = np.where(np.isfinite(latest), latest, usual)
    drift = _mean((recent[:, 0] - before)[:, -RECENT_HOURS:])
    slot = (ahead - until[:, np.newaxis]) % DAY
    usual, latest = (np.take_along_axis(series, slot, axis=1) for series in (usual, latest))
    drift = np.broadcast_to(drift[:, np.newaxis], ahead.shape)

    issue = past.newest(hours)
    said = past.said(issue[:, np.newaxis], ahead)
    first, table = bias_table(past)

    def bias(day: Hours, issued: Hours, about: Hours) -> Array:
        row = np.clip(day - first, 0, len(table) - 1)
        column = np.clip((about - issued) // DAY, 0, table.shape[1] - 1)
        mean: Array = table[row, column, about % DAY]
        return mean

    issued = past.issued[np.maximum(issue, 0)] if len(past.issued) else hours
    own = said + BIAS_TRUST * bias((hours // DAY)[:, np.newaxis], issued[:, np.newaxis], ahead)
    just = until[:, np.newaxis] + np.arange(-RECENT_HOURS, 0)
    then = past.newest(just)
    made = past.issued[np.maximum(then, 0)] if len(past.issued) else just
    error = past.at(just) - past.said(then, just) - BIAS_TRUST * bias(just // DAY, made, just)
    left = np.broadcast_to(_mean(error)[:, np.newaxis], ahead.shape)
    parts = np.stack((left, latest - own, usual - own, drift), axis=-1)
    alone = np.stack((latest - usual, drift), axis=-1)
    return Clues(past.at(np.where(ahead < until[:, np.newaxis], ahead, -1)), own, usual, parts, alone, scale)


def _fading(recent: Array) -> Array:
    """Return the mean over the days (axis 1, the latest first), a day's weight halved every five; NaN for none."""
    weight = 0.5 ** (np.arange(recent.shape[1]) / USUAL_HALF_LIFE)[:, np.newaxis]
    there = np.isfinite(recent)
    total = np.sum(np.where(there, recent, 0.0) * weight, axis=1)
    share = np.sum(there * weight, axis=1)
    mean: Array = np.divide(total, share, out=np.full(total.shape, np.nan), where=share > 0)
    return mean


def _mean(values: Array) -> Array:
    """Return the mean over the last axis of what is there; 0 where nothing is."""
    there = np.isfinite(values)
    mean: Array = np.where(there, values, 0.0).sum(axis=-1) / np.maximum(1, there.sum(axis=-1))
    return mean


def prior(lead: Array) -> tuple[Array, Array]:
    """Return the weights of ``parts`` and of ``alone`` for each lead in hours before anything is learned."""
    nothing = np.zeros(len(lead))
    drift = 0.55 * np.exp(-lead / 7.0) + 0.42 * np.exp(-lead / 48.0)
    with_forecast = np.stack((0.8 * np.exp(-lead / 18.0), nothing, 0.1 * np.minimum(lead, 48.0) / 48.0, nothing), -1)
    without = np.stack((0.12 * np.exp(-(((lead - 14.0) / 10.0) ** 2)), drift), -1)
    return with_forecast, without


@dataclass(frozen=True)
class Correction:
    """Weights for each lead, learned from a past, and how wrong the outcome of them was.

    Args:
        parts: Weights of :attr:`Clues.parts`, shape ``(leads, 4)``.
        alone: Weights of :attr:`Clues.alone`, shape ``(leads, 2)``.
        parts_error: Root mean square error with a forecast, as a fraction of the mean intensity, shape ``(leads,)``.
        alone_error: The same without a forecast.
        mix: Share of what history alone says, where there is a forecast, shape ``(leads,)``.

    """

    parts: Array
    alone: Array
    parts_error: Array
    alone_error: Array
    mix: Array

    def predict(self, clues: Clues) -> tuple[Array, Array]:
        """Return the intensity of each hour and its standard deviation, both of the shape ``(t, k)``; NaN for none."""
        lead = np.minimum(np.arange(clues.usual.shape[1]), LONGEST_LEAD - 1)
        own = clues.own + np.einsum("tkp,kp->tk", clues.parts, self.parts[lead])
        alone = clues.usual + np.einsum("tkp,kp->tk", clues.alone, self.alone[lead])
        given = np.isfinite(own)
        value = np.where(given, own + self.mix[lead] * (alone - own), alone)
        error = np.where(given, self.parts_error[lead], self.alone_error[lead]) * clues.scale
        known = np.isfinite(clues.known)
        return np.maximum(0.0, np.where(known, clues.known, value)), np.where(known, 0.0, error)


def learn(past: Past, lag: int) -> Correction:
    """Return the correction that the recent past teaches.

    Args:
        past: What is known; nothing else is used.
        lag: Hours after which an intensity is known: 1 where the hour that runs is not.

    """
    lead = np.arange(LONGEST_LEAD)
    with_forecast, without = prior(lead.astype(np.float64))
    end = past.known_until
    last = end // DAY * DAY
    hours = np.arange(max(past.first + DAY, last - LEARN_DAYS * DAY), last, LEARN_EVERY)
    if not len(hours):
        return Correction(
            with_forecast, without, _usual_error(lead, 0.04), _usual_error(lead, 0.1), np.zeros(LONGEST_LEAD)
        )
    seen = clues(past, hours, LONGEST_LEAD, lag)
    ahead = hours[:, np.newaxis] + lead
    target = np.where(np.isfinite(seen.known), np.nan, past.at(ahead)) / seen.scale
    fade = 0.5 ** ((last - hours) / DAY / LEARN_HALF_LIFE)
    issues = int((past.issued <= end - DAY).sum())
    enough = issues >= FEWEST_ISSUES
    parts, parts_error, own = with_forecast, _usual_error(lead, 0.04), seen.own
    if len(past.issued):
        parts, parts_error, own = _fit(parts, seen.parts, target, seen.own, seen.scale, fade, 0.04, enough)
    days = (last - past.first) // DAY
    alone, alone_error, usual = _fit(without, seen.alone, target, seen.usual, seen.scale, fade, 0.1, days > FEWEST_DAYS)
    mix = np.zeros(LONGEST_LEAD)
    if enough:
        mix, parts_error = history_share(target - own, usual - own, fade, parts_error)
    return Correction(parts, alone, parts_error, alone_error, mix)


def history_share(rest: Array, other: Array, fade: Array, error: Array) -> tuple[Array, Array]:
    """Return which share of what history alone says to take, the same for every lead, and the errors that are left.

    A plan is made from which hours are lower than others, and an error that all hours share does not change it. So the
    share, from 0 to 1, is the one that explains best the differences between the hours of the next two days, not their
    level: forecasts know the level of a calm grid better than history does, but not its hours.

    Args:
        rest: What the corrected forecasts got wrong, as a fraction of the mean intensity, shape ``(t, leads)``.
        other: What history alone says less what the corrected forecast does, in the same unit and shape.
        fade: Weight of each decision hour, shape ``(t,)``.
        error: Root mean square of ``rest`` at each lead, shape ``(leads,)``.

    """
    there = np.isfinite(rest) & np.isfinite(other)
    rest, other = np.where(there, rest, 0.0), np.where(there, other, 0.0)
    weight = fade[:, np.newaxis]
    near = slice(0, MIX_HOURS)
    now, missed = (_less_its_mean(series[:, near], there[:, near]) for series in (other, rest))
    days = float((there[:, near] * weight).sum()) / (DAY / LEARN_EVERY) / MIX_HOURS
    square, product = float((weight * now**2).sum()), float((weight * now * missed).sum())
    if days < 1 or square <= 0:
        return np.zeros(len(error)), error
    share = min(1.0, max(0.0, product / (square * (1.0 + MIX_DAYS / days))))
    left = error.copy()
    for low, high in itertools.pairwise(BANDS):
        before = float((weight * rest[:, low:high] ** 2).sum())
        after = float((weight * (rest - share * other)[:, low:high] ** 2).sum())
        left[low:high] *= np.sqrt(after / before) if before > 0 else 1.0
    return np.full(len(error), share), left


def _less_its_mean(values: Array, there: NDArray[np.bool_]) -> Array:
    """Return ``values`` less the mean of each row; 0 where there is none."""
    mean = values.sum(axis=1, keepdims=True) / np.maximum(1, there.sum(axis=1, keepdims=True))
    return np.where(there, values - mean, 0.0)


def _usual_error(lead: Hours, most: float) -> Array:
    """Return the error that is assumed where none has been seen, as a fraction of the mean intensity."""
    return most * (0.5 + 0.5 * np.minimum(lead, 24) / 24)


def _fit(
    weights: Array,
    clue: Array,
    target: Array,
    base: Array,
    scale: Array,
    fade: Array,
    usual: float,
    enough: bool,
) -> tuple[Array, Array, Array]:
    """Return weights and error of each lead, and what they say about the ``(t, k)`` targets, all relative to scale."""
    learned, error = weights.copy(), _usual_error(np.arange(len(weights)), usual)
    base = base / scale
    x, y = clue / scale[..., np.newaxis], target - base
    there = np.isfinite(y) & np.isfinite(x).all(axis=-1)
    x, y = np.where(there[..., np.newaxis], x, 0.0), np.where(there, y, 0.0)
    count = there * fade[:, np.newaxis]
    for low, high in itertools.pairwise(BANDS):
        now, wanted, share = x[:, low:high], y[:, low:high], count[:, low:high]
        total = float(share.sum())
        days = total / (DAY / LEARN_EVERY) / (high - low)
        if days < 1:
            continue
        rest = wanted - np.einsum("tkp,kp->tk", now, weights[low:high])
        if enough:
            flat = now.reshape(-1, x.shape[-1])
            weighted = flat * share.reshape(-1, 1)
            gram, pull = flat.T @ weighted, weighted.T @ rest.ravel()
            own = np.diag(gram)
            ridge = np.diag(PRIOR_DAYS / days * own + 1e-9 * max(1e-12, float(own.max())))
            change = np.linalg.solve(gram + ridge, pull)
            learned[low:high] += change
            rest = rest - now @ change
        square = float((share * rest**2).sum())
        # What is assumed counts as two days, so that a lucky day does not make a forecast certain.
        error[low:high] = np.sqrt((square / total * days + 2.0 * error[low:high] ** 2) / (days + 2.0))
    return learned, error, base + np.einsum("tkp,kp->tk", x, learned)
