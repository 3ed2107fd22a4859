"""Error rates, power and pairs of the rule, on pairs whose law is known: what chose the rule.

``python -m reports.gate.simulate`` compares signed ranks with a rule on means, whose level is spent
in the same way, under independent normal pairs and under pairs of which each is like the one
before it (an autoregression of first order).
"""

from __future__ import annotations

import bisect
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reference_model.command_line import Parser, exit_status
from reference_model.printing import say
from reports.gate.decision import Rule, outcomes_of_runs

Floats = NDArray[np.float64]
BENCHMARKS = 12
LARGEST = 500  # permille: no larger slowdown is looked for


@dataclass(frozen=True)
class Rates:
    """Shares of runs by outcome, and the pairs they took."""

    regression: float
    passed: float
    inconclusive: float
    median_pairs: float


def pairs_of(
    rng: np.random.Generator,
    shape: tuple[int, int, int],
    scatter: float | Floats,
    correlation: float = 0.0,
) -> Floats:
    """Log-ratios (runs, pairs, benchmarks), normal, each correlated with that of the pair before.

    ``scatter``: of all benchmarks, or of each.
    What follows itself in a machine is common to what runs on it: benchmarks are independent here,
    which is the worst case for a level that they share.
    """
    noise = rng.standard_normal(shape)
    found = np.empty(shape)
    found[:, 0] = noise[:, 0]
    for pair in range(1, shape[1]):
        kept = math.sqrt(1 - correlation**2) * noise[:, pair]
        found[:, pair] = correlation * found[:, pair - 1] + kept
    return scatter * found


def rates(
    rule: Rule,
    scatter: float,
    slowdown: float = 0.0,
    correlation: float = 0.0,
    runs: int = 1000,
    seed: int = 0,
    judge: Callable[..., tuple[NDArray[np.str_], NDArray[np.int_]]] = outcomes_of_runs,
) -> Rates:
    """One of `BENCHMARKS` is slower by ``slowdown``; a control stands beside them."""
    rng = np.random.default_rng(seed)
    x = pairs_of(rng, (runs, rule.most_pairs, BENCHMARKS + 1), scatter, correlation)
    x[:, :, 0] += math.log1p(slowdown)
    outcomes, pairs = judge(x, rule, BENCHMARKS)
    worse, passed, is_open = (
        float((outcomes == name).mean()) for name in ("regression", "pass", "inconclusive")
    )
    return Rates(worse, passed, is_open, float(np.median(pairs)))


def smallest_found(
    rule: Rule, scatter: Floats, pairs: int, share: float = 0.8, runs: int = 200, seed: int = 0
) -> float | None:
    """The least slowdown of one benchmark that so large a ``share`` of runs calls a regression.

    ``scatter``: of each benchmark and, last, of the control; each benchmark is the slower one in
    turn. ``pairs``: as many as a run can measure. To a tenth of a percent; None where they are too
    few for the largest that is tried.
    """
    pairs = min(pairs, rule.most_pairs)
    if pairs < rule.looks[0]:
        return None
    count = len(scatter) - 1
    x = pairs_of(np.random.default_rng(seed), (runs, pairs, count + 1), scatter)
    at = np.arange(runs)

    def is_found(permille: int) -> bool:
        slowed = x.copy()
        slowed[at, :, at % count] += math.log1p(permille / 1000)
        outcomes, _ = outcomes_of_runs(slowed, rule, count)
        return float((outcomes == "regression").mean()) >= share

    found = bisect.bisect_left(range(LARGEST + 1), True, key=is_found)
    return None if found > LARGEST else found / 1000


def pairs_until_verdict(
    rule: Rule, scatter: Floats, pairs: int, runs: int = 200, seed: int = 0
) -> int:
    """The median of runs in which nothing is slower, of at most so many ``pairs``; as above."""
    pairs = min(pairs, rule.most_pairs)
    if pairs < rule.looks[0]:
        return pairs
    x = pairs_of(np.random.default_rng(seed), (runs, pairs, len(scatter)), scatter)
    _, taken = outcomes_of_runs(x, rule, len(scatter) - 1)
    return round(float(np.median(taken)))


def by_means(
    x: Floats, rule: Rule, control: int | None = None
) -> tuple[NDArray[np.str_], NDArray[np.int_]]:
    """`outcomes_of_runs` with Student's test in place of signed ranks."""
    from scipy.stats import t

    margin, slowdown = math.log1p(rule.margin), math.log1p(rule.slowdown)
    runs, _, columns = x.shape
    own = [j for j in range(columns) if j != control]
    outcomes = np.full(runs, "inconclusive")
    pairs_taken = np.full(runs, rule.most_pairs)
    passed = np.zeros((runs, columns), dtype=bool)
    is_open, before = np.ones(runs, dtype=bool), 0
    for pairs in rule.looks:
        share = (pairs - before) / rule.most_pairs
        before = pairs
        seen = x[:, :pairs]
        mean, error = seen.mean(1), seen.std(1, ddof=1) / math.sqrt(pairs)
        reject = t.isf(share * rule.false_regression / columns, pairs - 1)
        slower = (mean - margin) / error > reject
        faster = (-mean - margin) / error > reject
        excluded = (slowdown - mean) / error > t.isf(share * rule.false_pass, pairs - 1)
        worse = (slower & ~passed)[:, own].any(1)
        passed |= excluded & ~slower
        unstable = (slower | faster)[:, control] if control is not None else np.zeros(runs, bool)
        for decided, name in (
            (unstable, "inconclusive"),
            (worse, "regression"),
            (passed[:, own].all(1), "pass"),
        ):
            now = is_open & decided
            outcomes[now], pairs_taken[now] = name, pairs
            is_open &= ~now
    return outcomes, pairs_taken


def comparison(runs: int) -> Iterator[tuple[str, float, float, float, Rates]]:
    """(rule, scatter, correlation, slowdown, rates) of all cases that are looked at."""
    for name, judge in (("signed ranks", outcomes_of_runs), ("means", by_means)):
        for correlation in (0.0, 0.6):
            for scatter in (0.01, 0.014, 0.02):
                for slowdown in (0.0, 0.03, 0.05):
                    found = rates(Rule(), scatter, slowdown, correlation, runs, judge=judge)
                    yield name, scatter, correlation, slowdown, found


def main() -> int:
    """Returns the exit status."""

    return exit_status(lambda: _show(_parser().parse_args().runs))


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate.simulate",
        description="Simulate the gate's rule, and print its error rates and its pairs.",
        example="500",
    )
    told = "simulated gates of each case (default: 2000)"
    parser.add_argument("runs", nargs="?", type=int, default=2000, help=told)
    return parser


def _show(runs: int) -> None:
    from tabulate import tabulate

    rows = [
        (rule, f"{100 * scatter:g} %", correlation, f"{100 * slowdown:g} %", r.regression, r.passed,
         r.inconclusive, r.median_pairs)
        for rule, scatter, correlation, slowdown, r in comparison(runs)
    ]  # fmt: skip
    titles = ["rule", "sd of a pair", "lag 1", "slowdown", "regression", "pass", "inconclusive",
              "pairs"]  # fmt: skip
    say(tabulate(rows, headers=titles, floatfmt=".4g", tablefmt="github"))


if __name__ == "__main__":
    sys.exit(main())
