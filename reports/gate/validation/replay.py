"""The gate's own decision on recorded A/A pairs: level, power, inconclusive share and time.

A run begins at a drawn pair of a drawn block and takes the pairs that follow (in a circle), so that
what follows itself in a machine still does. Some pairs in a row are turned round together, by a
coin: exact where base and head are exchangeable, as they are in A/A pairs. A slowdown is multiplied
into one benchmark, drawn for each run, or into every one. A run ends where the gate's budget would
end it, by the seconds that its pairs took; what is decided is not measured again, and a pair then
takes less, by as much as those of real runs. Intervals resample blocks, since what happens to pairs
of one block happens to all of its runs, and are as wide as the number of distinct runs alone makes
them, at the least: to replay more often adds none. Runs of a block share its pairs, which is in no
interval, nor is what a machine that was not recorded would do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks.judging.stats import proportion_interval
from reference_model.errors import UserError
from reports.gate.compare import BUDGET
from reports.gate.decision import Rule, outcomes_of_runs
from reports.gate.pairs import CONTROL
from reports.gate.validation.seconds import Seconds

Floats = NDArray[np.float64]
SLOWDOWNS = (0.0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.07, 0.1)
AS_RECORDED = dict.fromkeys((False, True), Seconds())
TURNED_TOGETHER = 5  # pairs in a row
RESAMPLES = 2000
Slowed = Literal["one", "every"]
METRICS = ("regression", "pass", "inconclusive", "pairs", "seconds")
SHARES = 3  # of the metrics, the first


def blocks(records: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Pairs by the block that they were recorded in."""
    found: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        found.setdefault(record["stretch"], []).append(record)  # a block, in lines that are stored
    return found


def scatter(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Standard deviation of a pair's log-ratio by benchmark, the mean of those of the blocks.

    Empty where no block has two pairs.
    """
    parts = [part for part in blocks(records).values() if len(part) > 1]
    return {
        id: float(np.mean([np.std([r["log_ratios"][id] for r in part], ddof=1) for part in parts]))
        for id in (records[0]["log_ratios"] if parts else ())
    }


def shift(records: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """By how much equal commits differ in the mean, by benchmark and over all of them.

    Nothing, unless the instrument prefers a side, which turning signs round in a replay hides.
    Errors are those of the mean of independent pairs, since each takes fresh processes.
    """
    columns = {id: [r["log_ratios"][id] for r in records] for id in records[0]["log_ratios"]}
    # All benchmarks of a pair share its processes: their mean is one observation of the pair.
    of_pairs = np.mean([column for id, column in columns.items() if id != CONTROL], axis=0)
    return {
        name: {
            "mean": float(np.mean(column)),
            "standard_error": float(np.std(column, ddof=1) / math.sqrt(len(records))),
        }
        for name, column in {"all benchmarks": of_pairs, **columns}.items()
    }


def replay(
    records: Sequence[dict[str, Any]],
    rule: Rule,
    slowdowns: Sequence[float] = SLOWDOWNS,
    runs: int = 1000,
    seed: int = 0,
    seconds: Mapping[bool, Seconds] = AS_RECORDED,
    slowed: Slowed = "one",
    budget: float = BUDGET,
) -> list[dict[str, Any]]:
    """A row per slowdown: each metric with its 95 % interval over blocks.

    ``runs`` are those of each block, ``seconds`` what a gate takes beside what recorded pairs
    tell, without and with a background load, which stored lines call a neighbour.
    """
    parts = list(blocks(records).values())
    ids = [id for id in parts[0][0]["log_ratios"] if id != CONTROL] if parts else []
    if not ids:
        raise UserError("there are no recorded pairs; record some first")
    rng = np.random.default_rng(seed)
    rows = []
    for slowdown in slowdowns:
        found = [
            one_block(
                pairs,
                ids,
                rule,
                slowdown,
                runs,
                rng,
                seconds[pairs[0]["neighbour"]],
                slowed,
                budget,
            )
            for pairs in parts
        ]
        distinct = sum(number for _, number in found)
        # Summaries that are published have "stretches" for blocks.
        counted = {"stretches": len(parts), "runs": runs * len(parts), "distinct runs": distinct}
        of_blocks = np.array([metrics for metrics, _ in found])
        rows.append({"slowdown": slowdown} | counted | _with_intervals(of_blocks, distinct, rng))
    return rows


def replayed_outcomes(
    records: Sequence[dict[str, Any]],
    rule: Rule,
    slowdown: float,
    runs: int,
    seconds: Mapping[bool, Seconds] = AS_RECORDED,
    seed: int = 1,
) -> dict[str, int]:
    """How so many runs end, spread evenly over the blocks; one benchmark is slower in each."""
    parts = list(blocks(records).values())
    ids = [id for id in parts[0][0]["log_ratios"] if id != CONTROL]
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys(METRICS[:SHARES], 0)
    for number, pairs in enumerate(parts):
        part = runs // len(parts) + (number < runs % len(parts))
        if part:
            of_block = seconds[pairs[0]["neighbour"]]
            metrics, _ = one_block(pairs, ids, rule, slowdown, part, rng, of_block, "one", BUDGET)
            for name, share in zip(counts, metrics, strict=False):
                counts[name] += round(share * part)
    return counts


def one_block(
    pairs: Sequence[dict[str, Any]],
    ids: Sequence[str],
    rule: Rule,
    slowdown: float,
    runs: int,
    rng: np.random.Generator,
    seconds: Seconds,
    slowed: Slowed,
    budget: float,
) -> tuple[list[float], int]:
    """The metrics of its runs, and how many of them are distinct."""
    matrix = np.array([[pair["log_ratios"][id] for id in (*ids, CONTROL)] for pair in pairs])
    took = np.array([pair["took"] for pair in pairs])
    at, signs = drawn_runs(len(pairs), rule.most_pairs, runs, rng)
    x, took = matrix[at] * signs[:, :, None], took[at]
    which = rng.integers(len(ids), size=runs)  # what is slowed, where it is one
    if slowed == "every":
        x[:, :, : len(ids)] += math.log1p(slowdown)
    else:
        x[np.arange(runs), :, which] += math.log1p(slowdown)
    spent = np.empty_like(took)

    def affordable(measured: NDArray[np.int_]) -> NDArray[np.int_]:
        each = seconds.of_pairs(took, measured / len(ids))
        np.cumsum(each, axis=1, out=spent)
        # As `run_pairs` does: a pair begins where the longest so far would still fit.
        longest = np.maximum.accumulate(each, axis=1)
        begins = (spent - each) + np.pad(longest, ((0, 0), (1, 0)))[:, :-1]
        fits = begins <= budget - seconds.before
        return np.asarray(np.logical_and.accumulate(fits, axis=1).sum(axis=1))

    outcomes, taken = outcomes_of_runs(x, rule, len(ids), affordable)
    shares = [float((outcomes == name).mean()) for name in METRICS[:SHARES]]
    of_pairs = np.where(taken > 0, spent[np.arange(runs), taken - 1], 0.0)
    total = seconds.around + seconds.before + float(np.median(of_pairs))
    used = np.arange(rule.most_pairs) < taken[:, None]
    alike = [at[:, :1], np.where(used, signs, 0.0)]
    if slowed == "one" and slowdown:
        alike.append(which[:, None])
    distinct = len(np.unique(np.hstack(alike), axis=0))
    return [*shares, float(np.median(taken)), total], distinct


def drawn_runs(
    recorded: int, length: int, runs: int, rng: np.random.Generator
) -> tuple[NDArray[np.int_], Floats]:
    """Which of a block's pairs each run takes, (runs, length), and the signs of their ratios."""
    starts = rng.integers(recorded, size=runs)
    at = (starts[:, None] + np.arange(length)) % recorded
    coins = rng.choice((-1.0, 1.0), size=(runs, math.ceil(length / TURNED_TOGETHER)))
    return at, np.repeat(coins, TURNED_TOGETHER, axis=1)[:, :length]


def _with_intervals(of_blocks: Floats, distinct: int, rng: np.random.Generator) -> dict[str, Any]:
    """The mean of each metric over blocks, and the quantiles of means of resampled ones.

    Means of few resampled blocks scatter too little, so that quantiles further out are taken:
    where means are normal, those at which Student's interval ends (Hesterberg 2015, "expanded
    percentile").
    """
    count = len(of_blocks)
    means = of_blocks[rng.integers(count, size=(RESAMPLES, count))].mean(axis=1)
    tail = _tail(count)
    low, high = np.quantile(means, (tail, 1 - tail), axis=0)
    for i, share in enumerate(of_blocks[:, :SHARES].mean(axis=0)):
        # Of no block with an alarm the resampled ones have none, and that is not never.
        exact = proportion_interval(round(share * distinct), distinct).interval
        low[i], high[i] = min(low[i], exact[0]), max(high[i], exact[1])
    return {
        name: {
            "value": float(of_blocks[:, i].mean()),
            # A single block says nothing of another one.
            "interval": [float(low[i]), float(high[i])] if count > 1 else None,
            "stretches": [float(value) for value in of_blocks[:, i]],
        }
        for i, name in enumerate(METRICS)
    }


def _tail(count: int, level: float = 0.95) -> float:
    from scipy.stats import norm, t

    if count == 1:
        return (1 - level) / 2
    widened = math.sqrt(count / (count - 1)) * t.ppf((1 - level) / 2, count - 1)
    return float(norm.cdf(widened))


def binomial_range(share: float, runs: int, level: float = 0.95) -> tuple[int, int]:
    """Counts of so many real runs that agree with a replayed share."""
    from scipy.stats import binom

    low, high = binom.interval(level, runs, share)
    return int(low), int(high)
