"""Paired log-ratios -> regression, pass or inconclusive: a sequential rule, and nothing else.

A log-ratio is log(seconds of head / seconds of base) of one pair of fresh processes. Of each
benchmark two hypotheses are tested at looks that are fixed beforehand:

- it is slower by the margin at most; rejected: a regression,
- it is slower by the slowdown of interest at least; rejected: a pass.

Both by Wilcoxon's signed ranks, whose null distribution is known exactly for independent pairs that
scatter symmetrically, however heavy their tails. The level is spent over the looks in proportion
to the pairs there are; what a look cannot spend, since ranks are discrete, the next one may. By
the union bound the level then holds over all looks, whatever the dependence between them. That of
regressions is shared by all benchmarks of a run (Bonferroni); a run passes only where each of them
passes, so that no share is needed for that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Outcome = Literal["regression", "pass", "inconclusive"]
Floats = NDArray[np.float64]

UNSTABLE = "unstable machine: base against itself was found to differ"


@dataclass(frozen=True)
class Rule:
    """What is tested, at which levels and when; margins as shares, 0.01 being 1 %."""

    margin: float = 0.01  # above 0, since pairs that follow each other are alike
    slowdown: float = 0.03
    false_regression: float = 0.01  # of a run, at the margin; without a difference far less
    false_pass: float = 0.05  # of a benchmark that is slower by the slowdown of interest
    looks: tuple[int, ...] = (8, 12, 16, 20, 25, 30, 36, 42, 50)  # pairs

    def __post_init__(self) -> None:
        if not 0 < self.margin < self.slowdown:
            raise ValueError(f"0 < {self.margin} (margin) < {self.slowdown} (slowdown) must hold")
        if list(self.looks) != sorted(set(self.looks)) or self.looks[0] < 2:
            raise ValueError(f"looks at {self.looks} pairs must grow, from 2 at least")

    @property
    def most_pairs(self) -> int:
        return self.looks[-1]


@dataclass(frozen=True)
class Judged:
    """One benchmark; effects as ratios of head's seconds to base's."""

    outcome: Outcome
    effect: float  # Hodges and Lehmann's median
    interval: tuple[float, float]  # that holds over all looks; infinite where pairs are too few
    pairs: int  # that were judged
    scatter: float  # standard deviation of a pair's log-ratio


@dataclass(frozen=True)
class Decision:
    """A whole run: its outcome, why where it is inconclusive, and each benchmark in order."""

    outcome: Outcome
    reason: str
    pairs: int
    final: bool  # False: more pairs may still decide
    benchmarks: tuple[Judged, ...]


def decide(
    log_ratios: ArrayLike, rule: Rule, control: int | None = None, shared_by: int | None = None
) -> Decision:
    """Judge (pairs, benchmarks) of a run so far.

    ``control`` is the column of base against itself. The level of regressions is shared by
    ``shared_by`` benchmarks, all that there are by default. What follows the look that decides is
    ignored, as is what follows the decision on a benchmark: NaN may stand there.
    """
    x = np.asarray(log_ratios, dtype=np.float64)
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"need (pairs, benchmarks), got {x.shape}")
    if control is not None and x.shape[1] == 1:
        raise ValueError("a control alone compares nothing")
    family = shared_by or x.shape[1]
    slower, faster, excluded = (flags[:, 0] for flags in _flags(x[None], rule, family))
    own = [j for j in range(x.shape[1]) if j != control]
    outcomes: dict[int, Outcome] = {}
    at = [0] * x.shape[1]
    reason, outcome, final, reached = "", "inconclusive", False, 0
    for look, pairs in enumerate(rule.looks):
        if pairs > len(x):
            break
        reached = pairs
        for j in range(x.shape[1]):
            if j in outcomes and j != control:
                continue
            at[j] = pairs
            if not np.isfinite(x[:pairs, j]).all():
                raise ValueError(f"benchmark {j} has no number in one of {pairs} pairs")
            if slower[look, j]:
                outcomes[j] = "regression"
            elif excluded[look, j]:
                outcomes[j] = "pass"
        if control is not None and (slower[look, control] or faster[look, control]):
            reason, final = UNSTABLE, True
        elif "regression" in (outcomes.get(j) for j in own):
            outcome, final = "regression", True
        elif all(outcomes.get(j) == "pass" for j in own):
            outcome, final = "pass", True
        if final:
            break
    if not final:
        final = reached == rule.most_pairs
        reason = _why_open(rule, x, [j for j in own if j not in outcomes], reached)
    judged = tuple(
        _judged(x[: at[j] or len(x), j], outcomes.get(j, "inconclusive"), rule)
        for j in range(x.shape[1])
    )
    return Decision(outcome, reason, reached, final, judged)  # type: ignore[arg-type]


def outcomes_of_runs(
    log_ratios: ArrayLike,
    rule: Rule,
    control: int | None = None,
    affordable: Callable[[NDArray[np.int_]], NDArray[np.int_]] | None = None,
) -> tuple[NDArray[np.str_], NDArray[np.int_]]:
    """The outcome and the pairs of each of many complete runs (runs, pairs, benchmarks).

    ``affordable``: how many benchmarks each pair measures (runs, pairs), the control aside -> the
    pairs (runs,) that the budget of each run lasts for; all by default. The same tests as `decide`,
    for simulation and replay; a test holds that they agree.
    """
    x = np.asarray(log_ratios, dtype=np.float64)
    slower, faster, excluded = _flags(x, rule, x.shape[-1])
    looks = len(slower)
    own = [j for j in range(x.shape[-1]) if j != control]
    # A benchmark that has passed is left alone from then on.
    passed = np.logical_or.accumulate(excluded & ~slower, axis=0)[..., own]
    passed_before = np.concatenate([np.zeros_like(passed[:1]), passed[:-1]])
    worse = (slower[..., own] & ~passed_before).any(-1)
    unstable = np.zeros_like(worse)
    if control is not None:
        unstable = slower[..., control] | faster[..., control]
    codes = np.select([unstable, worse, passed.all(-1)], [1, 2, 3], 0)  # (looks, runs)
    at = np.array(rule.looks[:looks])
    most = np.full(x.shape[0], at[-1])
    if affordable:
        open_after = len(own) - np.concatenate([passed_before, passed[-1:]]).sum(-1)
        looks_before = np.searchsorted(at, np.arange(x.shape[1]), side="right")
        most = np.minimum(affordable(open_after[looks_before].T), at[-1])
    decided = (codes > 0) & (at[:, None] <= most)
    first, found = decided.argmax(0), decided.any(0)
    names = np.array(["inconclusive", "inconclusive", "regression", "pass"])
    codes_found = np.where(found, codes[first, np.arange(x.shape[0])], 0)
    return names[codes_found], np.where(found, at[first], most)


# ---- the tests


def _flags(x: Floats, rule: Rule, family: int) -> tuple[NDArray[np.bool_], ...]:
    """Slower than the margin, faster by as much, the slowdown excluded: (looks, runs, benchmarks).

    Only for looks that the pairs of x (runs, pairs, benchmarks) suffice for.
    """
    margin, slowdown = math.log1p(rule.margin), math.log1p(rule.slowdown)
    of_regression = critical_sums(rule.looks, rule.false_regression / family)
    of_pass = critical_sums(rule.looks, rule.false_pass)
    slower, faster, excluded = [], [], []
    for look, pairs in enumerate(rule.looks):
        if pairs > x.shape[1]:
            break
        seen = x[:, :pairs]
        slower.append(rank_sum(seen - margin) >= of_regression[look])
        faster.append(rank_sum(-seen - margin) >= of_regression[look])
        excluded.append(rank_sum(slowdown - seen) >= of_pass[look])
    none = np.zeros((0, x.shape[0], x.shape[2]), dtype=bool)
    return tuple(np.array(flags) if flags else none for flags in (slower, faster, excluded))


def rank_sum(x: Floats) -> Floats:
    """Wilcoxon's sum of the ranks of the positive ones, over the pairs of (runs, pairs, …)."""
    from scipy.stats import rankdata

    return np.asarray((rankdata(np.abs(x), axis=1) * (x > 0)).sum(axis=1))


@cache
def survival(pairs: int) -> Floats:
    """P(rank sum >= w) for w = 0, 1, … under the null hypothesis, exactly."""
    counts = np.ones(1)
    for rank in range(1, pairs + 1):
        grown = np.zeros(len(counts) + rank)
        grown[: len(counts)] += counts
        grown[rank:] += counts
        counts = grown / 2
    return np.asarray(counts[::-1].cumsum()[::-1])


@cache
def critical_sums(looks: tuple[int, ...], level: float) -> tuple[float, ...]:
    """The least rank sum that rejects at each look; infinite where none may."""
    spent, sums = 0.0, []
    for pairs in looks:
        allowed = level * pairs / looks[-1] - spent
        tail = survival(pairs)
        (rejecting,) = np.nonzero(tail <= allowed)
        sums.append(float(rejecting[0]) if len(rejecting) else math.inf)
        spent += float(tail[rejecting[0]]) if len(rejecting) else 0.0
    return tuple(sums)


# ---- what is told


def _judged(x: Floats, outcome: Outcome, rule: Rule) -> Judged:
    averages = np.sort(_walsh_averages(x))
    low, high = _interval(averages, len(x), rule)
    scatter = float(x.std(ddof=1)) if len(x) > 1 else math.nan
    effect = float(np.median(averages)) if len(x) else math.nan
    return Judged(outcome, math.exp(effect), (math.exp(low), math.exp(high)), len(x), scatter)


def _walsh_averages(x: Floats) -> Floats:
    i, j = np.triu_indices(len(x))
    return np.asarray((x[i] + x[j]) / 2)


def _interval(averages: Floats, pairs: int, rule: Rule) -> tuple[float, float]:
    """What the test of a pass does not reject, from above and from below (1 - 2 false_pass)."""
    if pairs not in rule.looks:  # before the first
        return -math.inf, math.inf
    least = critical_sums(rule.looks, rule.false_pass)[rule.looks.index(pairs)]
    if not math.isfinite(least):
        return -math.inf, math.inf
    # The rank sum of (bound - x) counts the averages below the bound: it is least or more from
    # the least-th average on.
    return float(averages[-int(least)]), float(averages[int(least) - 1])


def _why_open(rule: Rule, x: Floats, undecided: Sequence[int], pairs: int) -> str:
    if pairs == 0:
        return f"{len(x)} pairs are too few to judge by; the first look is at {rule.looks[0]}"
    scatter = max(float(np.nanstd(x[:pairs, j], ddof=1)) for j in undecided)
    return (
        f"{len(undecided)} of the benchmarks undecided after {pairs} pairs, which scatter by up to "
        f"{100 * scatter:.1f} %"
    )


def as_plain(decision: Decision) -> dict[str, Any]:
    """JSON of a decision; an interval that is not bounded is null."""

    def finite(value: float) -> float | None:
        return value if math.isfinite(value) and value > 0 else None

    return {
        "outcome": decision.outcome,
        "reason": decision.reason,
        "pairs": decision.pairs,
        "benchmarks": [
            {
                "outcome": b.outcome,
                "effect": finite(b.effect),
                "interval": [finite(bound) for bound in b.interval],
                "pairs": b.pairs,
                "scatter": finite(b.scatter),
            }
            for b in decision.benchmarks
        ],
    }
