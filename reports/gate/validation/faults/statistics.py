"""Faults of statistics, verdicts and sentences: what is concluded from what was measured."""

from __future__ import annotations

from reports.gate.validation.faults.change import of_group
from reports.gate.validation.faults.places import (
    CLAIMS,
    FINDINGS,
    PRODUCT_MOMENTS,
    ROUNDING,
    SENTENCES,
    STATS,
    VARIANCE_CHECKS,
    VERDICTS,
)

FACTORIAL = "benchmarks/experiments/int8/factorial.py"
INTERVAL_COVERAGE = "benchmarks/experiments/interval_coverage.py"
LORA_CHECKS = "benchmarks/experiments/lora/checks.py"
LORA_RANK = "benchmarks/experiments/lora/rank.py"
MEMORY_BOUND = "benchmarks/experiments/cache/memory_bound.py"

fault = of_group("statistics")

OF_ESTIMATES = (
    fault(
        "interval of a mean ignores its level",
        "The interval of a mean holds 95 %, whatever level is asked for.",
        (
            STATS,
            "stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(values))\n",
            "stats.t.ppf(0.975, n - 1) * stats.sem(values))\n",
        ),
    ),
    fault(
        "normal interval over clusters",
        "An interval over few clusters takes the normal distribution for Student's.",
        (
            STATS,
            "    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * error\n"
            "    return Estimate(mean, (mean - half, mean + half), n)\n\n\n"
            "def _clustered_error",
            "    half = float(stats.norm.ppf((1 + level) / 2)) * error\n"
            "    return Estimate(mean, (mean - half, mean + half), n)\n\n\n"
            "def _clustered_error",
        ),
    ),
    fault(
        "windows counted as clusters",
        "The n of an interval over clusters is that of the values in them.",
        (
            STATS,
            "(sums @ sums)) / len(values), n\n",
            "(sums @ sums)) / len(values), len(values)\n",
        ),
    ),
    fault(
        "biased scatter of seeds",
        "The scatter of seeds is divided by their number, not by one less.",
        (
            STATS,
            "table.mean(axis=1).std(ddof=1) / math.sqrt(len(table))\n",
            "table.mean(axis=1).std() / math.sqrt(len(table))\n",
        ),
    ),
    fault(
        "degrees of freedom of the more",
        "An interval over seeds and text has the degrees of freedom of whichever are more.",
        (STATS, "min(len(table), n_blocks)\n", "max(len(table), n_blocks)\n"),
    ),
    fault(
        "weights of a power law not squared",
        "A power law is fitted with weights by the errors, not by their squares.",
        (
            STATS,
            "    weights = (y / standard_errors) ** 2\n",
            "    weights = y / standard_errors\n",
        ),
    ),
    fault(
        "normal interval of a share",
        "A share has the normal interval, which is empty where all or none succeeded.",
        (
            STATS,
            '    found = stats.binomtest(successes, trials).proportion_ci(level, method="exact")\n'
            "    return Estimate(successes / trials, "
            "(float(found.low), float(found.high)), trials)\n",
            "    share = successes / trials\n"
            "    half = float(stats.norm.ppf((1 + level) / 2))\n"
            "    half *= math.sqrt(share * (1 - share) / trials)\n"
            "    return Estimate(share, (share - half, share + half), trials)\n",
        ),
    ),
    fault(
        "slopes through the origin",
        "Unweighted exponents are those of lines through the origin.",
        (
            STATS,
            "    log_x = np.log(xs) - np.log(xs).mean()\n",
            "    log_x = np.log(xs)\n",
        ),
    ),
)

OF_TESTS = (
    fault(
        "one-sided p value",
        "The p value of a difference counts one side.",
        (
            STATS,
            "np.asarray(2 * stats.norm.sf(np.abs(value - expected) / error))\n",
            "np.asarray(stats.norm.sf(np.abs(value - expected) / error))\n",
        ),
    ),
    fault(
        "equivalence by the easier test",
        "Equivalence is shown by the easier of its two one-sided tests.",
        (
            STATS,
            "    nearer = np.minimum(value - low, high - value)\n",
            "    nearer = np.maximum(value - low, high - value)\n",
        ),
    ),
    fault(
        "Holm without its running maximum",
        "A p value that Holm adjusts may be smaller than that of a smaller one.",
        (
            STATS,
            "np.minimum(np.maximum.accumulate(ascending, axis=-1), 1)\n",
            "np.minimum(ascending, 1)\n",
        ),
    ),
    fault(
        "check of values forgets Holm",
        "The check of a law's values takes the smallest p value as it is.",
        (
            VARIANCE_CHECKS,
            "    return holm(difference_p_value(means / laws, errors, 1.0)).min(axis=-1)\n",
            "    return difference_p_value(means / laws, errors, 1.0).min(axis=-1)\n",
        ),
    ),
    fault(
        "errors added, not their squares",
        "The check for dependence adds errors where it should add their squares.",
        (
            VARIANCE_CHECKS,
            "np.sqrt(np.square(ranks * errors).sum(keepdims=True))",
            "(ranks * errors).sum(keepdims=True)",
        ),
    ),
    fault(
        "cross terms counted once",
        "The variance of a product's norm has its cross terms once and not twice.",
        (
            PRODUCT_MOMENTS,
            "excess_a * excess_b + 2 * (rank - 1)\n",
            "excess_a * excess_b + (rank - 1)\n",
        ),
    ),
    fault(
        "too much correlation is simulated",
        "Simulated factors are correlated as if they had one rank more.",
        (
            LORA_CHECKS,
            "math.sqrt(1 - rho), math.sqrt(1 + (rank - 1) * rho)\n",
            "math.sqrt(1 - rho), math.sqrt(1 + rank * rho)\n",
        ),
    ),
)

OF_EXPERIMENTS = (
    fault(
        "rate chosen by the luckiest seed",
        "The best learning rate is the one with the lowest loss of any seed.",
        (
            LORA_RANK,
            "statistics.fmean(o.validation_loss for o in found[option, rank, rate]),\n",
            "min(o.validation_loss for o in found[option, rank, rate]),\n",
        ),
    ),
    fault(
        "interaction adds what it should take away",
        "The interaction of two roundings is the sum of their effects.",
        (
            FACTORIAL,
            "    return windows.mean(with_weights - without)\n",
            "    return windows.mean(with_weights + without)\n",
        ),
    ),
    fault(
        "clusters of other windows",
        "Intervals over some windows take the stretches of the first ones.",
        (
            INTERVAL_COVERAGE,
            "crossed_mean_interval(table[:, chosen], stretches[chosen])\n",
            "crossed_mean_interval(table[:, chosen], stretches[: len(chosen)])\n",
        ),
    ),
    fault(
        "reading share between the means",
        "The share of reading lies between two means, not between the ends of their intervals.",
        (
            MEMORY_BOUND,
            "    interval = (least.interval[0], min(1.0, most.interval[1]))\n",
            "    interval = (least.value, min(1.0, most.value))\n",
        ),
    ),
)

OF_VERDICTS = (
    fault(
        "an open instrument is enough",
        "A claim is judged although its instrument did not reach its known answer.",
        (
            VERDICTS,
            'for part in instruments if part.verdict != "confirmed"]\n',
            'for part in instruments if part.verdict == "refuted"]\n',
        ),
    ),
    fault(
        "depends goes before open",
        "A claim with an undecided part is told to depend.",
        (
            VERDICTS,
            '("refuted", "open", "depends", "confirmed")\n',
            '("refuted", "depends", "open", "confirmed")\n',
        ),
    ),
    fault(
        "touching the border is outside",
        "An interval that ends on the border of a region is outside of it.",
        (
            CLAIMS,
            "first <= low and high <= last, high < first or last < low\n",
            "first <= low and high <= last, high <= first or last <= low\n",
        ),
    ),
    fault(
        "one digit too many",
        "Half-widths that begin with a 2 support a second digit.",
        (
            ROUNDING,
            '    places = (1 if first < "2" else 0) - int(power)\n',
            '    places = (1 if first < "3" else 0) - int(power)\n',
        ),
    ),
    fault(
        "interval rounded across a border",
        "Rounding keeps the value on its side of a border, but not the ends of its interval.",
        (
            ROUNDING,
            "        if side is None or all(side(a) == side(b) "
            "for a, b in zip(numbers, rounded, strict=True)):\n",
            "        if side is None or side(numbers[0]) == side(rounded[0]):\n",
        ),
    ),
    fault(
        "worst case by its value alone",
        "The case nearest to a border is looked for without its interval.",
        (
            SENTENCES,
            "for x in (m.interval or (m.value,))),\n",
            "for x in (m.value,)),\n",
        ),
    ),
    fault(
        "least and most change places",
        "A finding tells the most where its words ask for the least.",
        (
            FINDINGS,
            '                pick = min if name == "least" else max\n',
            '                pick = max if name == "least" else min\n',
        ),
    ),
)

STATISTICS = (*OF_ESTIMATES, *OF_TESTS, *OF_EXPERIMENTS, *OF_VERDICTS)
