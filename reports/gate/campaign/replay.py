"""The gate's own decision on recorded A/A pairs: level, power, inconclusive share and time.

A run begins at a drawn pair of a drawn stretch and takes the pairs that follow (in a circle), so
that what follows itself in a machine still does. Blocks of pairs are turned round as a whole, by a
coin: exact where base and head are exchangeable, as they are in A/A pairs. A slowdown is multiplied
into one benchmark, drawn for each run, or into every one. Intervals resample stretches, since what
happens to pairs of one stretch happens to all of its runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from reference_model.errors import UserError
from reports.gate.decision import Rule, outcomes_of_runs
from reports.gate.pairs import CONTROL

Floats = NDArray[np.float64]
SLOWDOWNS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.07, 0.1)
BLOCK = 5  # pairs that are turned round together
RESAMPLES = 2000
Slowed = Literal["one", "every"]
METRICS = ("regression", "pass", "inconclusive", "pairs", "seconds")


def stretches(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Pairs by the stretch of time they were recorded in."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record["stretch"], []).append(record)
    return found


def scatter(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Standard deviation of a pair's log-ratio by benchmark, the mean of those of the stretches."""
    parts = stretches(records).values()
    return {
        id: float(np.mean([np.std([r["log_ratios"][id] for r in part], ddof=1) for part in parts]))
        for id in records[0]["log_ratios"]
    }


def replay(
    records: Sequence[dict[str, Any]],
    rule: Rule,
    slowdowns: Sequence[float] = SLOWDOWNS,
    runs: int = 1000,
    seed: int = 0,
    setup_seconds: float = 0.0,
    slowed: Slowed = "one",
) -> list[dict[str, Any]]:
    """A row per slowdown: each metric with its 95 % interval over stretches.

    ``runs`` are those of each stretch, ``setup_seconds`` what a gate takes before its first pair.
    """
    parts = list(stretches(records).values())
    ids = [id for id in parts[0][0]["log_ratios"] if id != CONTROL] if parts else []
    if not ids:
        raise UserError("there are no recorded pairs; record some first")
    rng = np.random.default_rng(seed)
    rows = []
    for slowdown in slowdowns:
        of_stretches = np.array(
            [
                _one_stretch(pairs, ids, rule, slowdown, runs, rng, setup_seconds, slowed)
                for pairs in parts
            ]
        )
        rows.append(
            {"slowdown": slowdown, "stretches": len(parts), "runs": runs * len(parts)}
            | _with_intervals(of_stretches, rng)
        )
    return rows


def _one_stretch(
    pairs: Sequence[dict[str, Any]],
    ids: Sequence[str],
    rule: Rule,
    slowdown: float,
    runs: int,
    rng: np.random.Generator,
    setup_seconds: float,
    slowed: Slowed,
) -> list[float]:
    matrix = np.array([[pair["log_ratios"][id] for id in (*ids, CONTROL)] for pair in pairs])
    x = drawn_runs(matrix, rule.most_pairs, runs, rng)
    if slowed == "every":
        x[:, :, : len(ids)] += math.log1p(slowdown)
    else:
        x[np.arange(runs), :, rng.integers(len(ids), size=runs)] += math.log1p(slowdown)
    outcomes, taken = outcomes_of_runs(x, rule, len(ids))
    shares = [float((outcomes == name).mean()) for name in METRICS[:3]]
    each = float(np.median([pair["took"] for pair in pairs]))
    median = float(np.median(taken))
    return [*shares, median, setup_seconds + median * each]


def drawn_runs(matrix: Floats, length: int, runs: int, rng: np.random.Generator) -> Floats:
    """(runs, length, benchmarks) out of a stretch (pairs, benchmarks), turned round in blocks."""
    starts = rng.integers(len(matrix), size=runs)
    at = (starts[:, None] + np.arange(length)) % len(matrix)
    blocks = rng.choice((-1.0, 1.0), size=(runs, math.ceil(length / BLOCK)))
    signs = np.repeat(blocks, BLOCK, axis=1)[:, :length]
    return np.asarray(matrix[at] * signs[:, :, None])


def _with_intervals(of_stretches: Floats, rng: np.random.Generator) -> dict[str, Any]:
    """The mean of each metric over stretches, and the quantiles of means of resampled ones."""
    count = len(of_stretches)
    means = of_stretches[rng.integers(count, size=(RESAMPLES, count))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975), axis=0)
    return {
        name: {
            "value": float(of_stretches[:, i].mean()),
            # A single stretch says nothing of another one.
            "interval": [float(low[i]), float(high[i])] if count > 1 else None,
            "stretches": [float(value) for value in of_stretches[:, i]],
        }
        for i, name in enumerate(METRICS)
    }


def binomial_range(share: float, runs: int, level: float = 0.95) -> tuple[int, int]:
    """Counts of so many real runs that agree with a replayed share."""
    from scipy.stats import binom

    low, high = binom.interval(level, runs, share)
    return int(low), int(high)
