"""Where the best learning rate lies, how it moves with the rank, and how surely a design tells it.

The valley of the loss over the rate is no parabola: it has a wall above the best rate and a gentle
slope below. So the rule that reads its lowest point is part of the result, and is named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.judging.stats import Estimate, mean_interval, unweighted_slopes

Array = NDArray[np.float64]

RULES = {"three lowest": 3, "four lowest": 4}  # points that a parabola goes through, or near
DESIGNS = 200  # that are resampled
MARGIN = 0.1  # of an exponent that is called equal to its law


def best_rate(rates: Array, losses: Array, points: int) -> float:
    """The lowest point of a parabola in log rate through the ``points`` with the lowest losses.

    Never outside of them; the lowest of them where they do not lie in a valley. Losses that are not
    finite are left out. Raises ValueError where fewer than three are left.
    """
    finite = np.flatnonzero(np.isfinite(losses))
    if len(finite) < 3:
        raise ValueError(f"{len(finite)} of {len(losses)} losses are finite: no valley")
    chosen = np.sort(finite[np.argsort(losses[finite], kind="stable")][:points])
    x, y = np.log(rates[chosen]), losses[chosen]
    middle = x.mean()
    curvature, slope, _ = np.polyfit(x - middle, y, 2)
    if curvature <= 0:
        return float(rates[chosen][y.argmin()])
    return float(np.exp(np.clip(middle - slope / (2 * curvature), x.min(), x.max())))


def exponents(ranks: Array, rates: Array, losses: Array, points: int) -> Array:
    """(seeds,) slopes of log best rate on log rank, of ``losses`` (seeds, ranks, rates)."""
    best = [[best_rate(rates, valley, points) for valley in of_seed] for of_seed in losses]
    return unweighted_slopes(ranks, np.array(best))


@dataclass(frozen=True)
class Resampled:
    """Of designs drawn from measured valleys: how often each is found equal to the law."""

    within: float  # share whose interval lies within MARGIN of the law
    mean: float  # exponent, over all designs


def resampled(
    ranks: Array,
    rates: Array,
    losses: Array,
    law: float,
    planted: float,
    points: int,
    designs: int | None = None,
    seed: int = 0,
) -> Resampled:
    """So many ``designs`` (DESIGNS) as that of ``losses`` (seeds, ranks, rates), drawn anew.

    Each rank has its own mean valley, moved so that its best rate has the ``planted`` exponent. The
    noise of a cell is what is left of it when its seed's level and its valley are taken off. What
    diverged is 1 nat above all that did not.
    """
    losses = np.where(np.isfinite(losses), losses, losses[np.isfinite(losses)].max() + 1)
    valleys = losses.mean(axis=0)  # (ranks, rates)
    levels = losses.mean(axis=2, keepdims=True) - losses.mean(axis=(0, 2), keepdims=True)
    noise = (losses - valleys - levels).ravel()
    x = np.log(rates)
    best = np.array([np.log(best_rate(rates, valley, points)) for valley in valleys])
    wanted = planted * (np.log(ranks) - np.log(ranks).mean()) + best.mean()
    moved = np.array(
        [np.interp(x - by, x, valley) for valley, by in zip(valleys, wanted - best, strict=True)]
    )
    draws, found = np.random.default_rng(seed), []
    for _ in range(DESIGNS if designs is None else designs):
        drawn = moved + draws.choice(noise, size=losses.shape)
        found.append(mean_interval(exponents(ranks, rates, drawn, points)))
    return Resampled(
        within=float(np.mean([equal(each, law) for each in found])),
        mean=float(np.mean([each.value for each in found])),
    )


def equal(exponent: Estimate, law: float) -> bool:
    """Whether the interval lies within MARGIN of the law."""
    low, high = exponent.interval
    return law - MARGIN <= low and high <= law + MARGIN
