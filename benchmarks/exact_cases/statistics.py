"""The suite's statistics on numbers whose answer is known: values, coverage, level and power."""

from __future__ import annotations

from functools import partial
from typing import Any

from benchmarks.exact_cases.case import Case, refusal

SEED, REPEATS = 20_261_129, 200


def _samples(*shape: int, seed: int = SEED) -> Any:
    import numpy as np

    return np.random.default_rng(seed).normal(1.0, 0.5, shape)


def _intervals() -> object:
    """Each interval of a mean, at two levels, of few samples and many, of uneven clusters."""
    import numpy as np

    from benchmarks.judging import stats

    x, clusters = _samples(17), np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 6, 6])
    found: list[object] = []
    for level in (0.95, 0.8):
        found += [stats.mean_interval(x, level), stats.mean_interval(x[:2], level)]
        found += [stats.clustered_mean_interval(x, clusters, level)]
        found += [stats.clustered_mean_interval(_samples(17, 3), clusters, level)]
        found += [stats.crossed_mean_interval(_samples(4, 17), level=level)]
        found += [stats.crossed_mean_interval(_samples(4, 17), clusters, level)]
        found += [stats.crossed_mean_interval(_samples(1, 17), clusters, level)]
        found += [stats.crossed_mean_interval(_samples(9, 3), level=level)]
        found += [stats.geometric_mean_ratio_interval(np.exp(x), level)]
        for successes, trials in ((0, 9), (3, 9), (9, 9), (40, 65)):
            found.append(stats.proportion_interval(successes, trials, level))
    estimate = stats.mean_interval(x)
    found += [stats.exponential(estimate), stats.scaled(estimate, 1000.0), estimate.of("plays")]
    wrong: tuple[Any, ...] = ([1.0], [1.0, float("nan")], [[1.0, 2.0]], [])
    found += [refusal(partial(stats.mean_interval, each)) for each in wrong]
    found += [refusal(partial(stats.geometric_mean_ratio_interval, [1.0, -1.0]))]
    found += [refusal(partial(stats.clustered_mean_interval, x, clusters[:3]))]
    found += [refusal(partial(stats.clustered_mean_interval, x[:3], clusters[:3]))]
    found += [refusal(partial(stats.crossed_mean_interval, x))]
    return [*found, refusal(partial(stats.Estimate, float("inf"), (0.0, 1.0), 3))]


def _exponents() -> object:
    import numpy as np

    from benchmarks.judging import stats

    x = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    y = 3 * x**-1.5 * np.exp(0.1 * _samples(5))
    errors = 0.1 * y
    found: list[object] = [
        stats.power_law_exponent(x, y, errors),
        stats.power_law_exponent(x, y, errors * [1, 2, 3, 4, 5], 0.8, family=4),
        *stats.power_law_slopes(
            x, np.stack((y, 2 * y, 1 / y)), np.stack((errors, errors, 0.2 / y))
        ),
        stats.unweighted_slopes(x, np.stack((y, 2 * y, 1 / y))),
    ]
    found += [refusal(partial(stats.power_law_exponent, x, -y, errors))]
    found += [refusal(partial(stats.power_law_exponent, x * 0 + 1, y, errors))]
    found += [refusal(partial(stats.power_law_exponent, x, y, errors[:4]))]
    return [*found, refusal(partial(stats.unweighted_slopes, x, [y[:4]]))]


def _p_values() -> object:
    import numpy as np

    from benchmarks.judging import stats

    values = np.array([-3.0, -0.5, 0.0, 0.2, 1.0, 4.0])
    families = np.array([[0.01, 0.04, 0.03, 0.5], [0.2, 0.2, 0.001, 1.0], [0.05, 0.0, 0.05, 0.05]])
    return [
        stats.difference_p_value(values, 1 + values**2, 0.3),
        stats.equivalence_p_value(values, np.array(0.7), -1.0, 2.0),
        stats.holm(families),
        stats.holm(families[0]),
        stats.holm([0.5]),
        refusal(lambda: stats.holm([0.1, float("nan")])),
    ]


def _coverage() -> object:
    """How many of many intervals hold the truth, by each way to make one."""
    import numpy as np

    from benchmarks.judging import stats

    generator = np.random.default_rng(SEED)
    held = dict.fromkeys(("mean", "clustered", "crossed", "ratio", "share", "exponent"), 0)
    ranks = np.array([1.0, 4.0, 16.0, 64.0])
    for _ in range(REPEATS):
        blocks = np.repeat(np.arange(8), 3)
        texts = generator.normal(0, 1, 8)[blocks] + generator.normal(0, 0.3, 24)
        table = generator.normal(0, 1, (5, 1)) + generator.normal(0, 1, (1, 9))
        means = ranks * (1 + 0.05 * generator.normal(size=4))
        successes = int(generator.binomial(30, 0.2))
        intervals = {
            "mean": (stats.mean_interval(generator.normal(0, 1, 6)), 0.0),
            "clustered": (stats.clustered_mean_interval(texts, blocks), 0.0),
            "crossed": (stats.crossed_mean_interval(table), 0.0),
            "ratio": (stats.geometric_mean_ratio_interval(generator.lognormal(0, 1, 6)), 1.0),
            "share": (stats.proportion_interval(successes, 30), 0.2),
            "exponent": (stats.power_law_exponent(ranks, means, 0.05 * means), 1.0),
        }
        for name, (found, truth) in intervals.items():
            held[name] += found.interval[0] <= truth <= found.interval[1]
    return held


def _planned() -> object:
    """What a pilot scatters by, in even stretches and uneven ones, and the power of larger runs."""
    import numpy as np

    from benchmarks.judging import power, stats

    clusters = np.array([0, 0, 0, 1, 2, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 6, 6])
    pilots = [
        power.scatter_of(_samples(4, 17), clusters),
        power.scatter_of(_samples(4, 16) + np.arange(8).repeat(2), np.arange(8).repeat(2)),
    ]
    powers = [
        power.crossed_power(distance, pilot, power.Design(seeds, blocks, 9), level)
        for pilot in pilots
        for distance in (-0.2, 0.0, 1.5)
        for seeds, blocks in ((3, 20), (30, 90))
        for level in (0.95, 0.8)
    ]
    p_values = [stats.student_p_value(stats.mean_interval(_samples(9)), x) for x in (0.0, 1.0)]
    wrong = refusal(partial(power.scatter_of, _samples(1, 17), clusters))
    return [[vars(each) for each in pilots], powers, p_values, wrong]


def _level_and_power() -> object:
    """How often each check of a law doubts it: where it holds, and where it is a little wrong."""
    import numpy as np

    from benchmarks.experiments.lora import product_moments, variance_checks
    from benchmarks.judging import stats

    generator = np.random.default_rng(SEED)
    ranks = np.array([1.0, 4.0, 16.0, 64.0])
    errors = np.sqrt([product_moments.relative_variance(64, 64, int(r), 3, 3) / 50 for r in ranks])
    found: list[object] = [errors]
    for exponent in (1.0, 1.02, 1.1):
        means = ranks**exponent * (1 + errors * generator.normal(size=(REPEATS, 4)))
        cross = means * errors * generator.normal(size=(REPEATS, 4)) + 0.1 * (exponent - 1)
        for p_values in (
            variance_checks.value_check(means, ranks, errors),
            variance_checks.exponent_check(ranks, means, errors, 1.0),
            variance_checks.equivalence_check(ranks, means, errors, 1.0),
            variance_checks.dependence_check(ranks, cross, means, errors),
        ):
            found += [int((p_values < variance_checks.NOMINAL).sum()), p_values]
    families = stats.holm(generator.uniform(size=(REPEATS, 7))).min(axis=1) < 0.05
    return [*found, int(families.sum())]


def _moments() -> object:
    from benchmarks.experiments.lora import product_moments as moments

    found: list[object] = []
    for d, n, rank in ((64, 48, 1), (64, 64, 16), (7, 1024, 300)):
        found += [moments.expectation(d, n, rank, 0.5, 2.0)]
        found += [moments.relative_variance(d, n, rank, ka, kb) for ka in (3, 1.8) for kb in (3, 1)]
        found += [moments.relative_variance_of_cross_terms(d, n, rank)]
        found += [moments.correlated_over_independent(rank, 0.1, rho) for rho in (0.0, 0.3)]
    return found


def _windows() -> object:
    """Windows, their blocks of text, samples of them, and means over them."""
    import torch

    from benchmarks.instruments import windows
    from benchmarks.instruments.finetuning import spread_windows
    from benchmarks.instruments.texts import shuffled_windows

    texts = [torch.arange(9000), torch.arange(130) + 100_000, torch.arange(20)]
    cut = windows.windows_of(texts, 64, "three texts")
    some = windows.spread(cut, 20, seed=3)
    batches = shuffled_windows(texts[0], 32, 4, seed=2)
    values = torch.arange(len(cut)).double().sin().numpy()
    return [
        len(cut),
        cut.inputs,
        cut.targets,
        cut.stretches,
        some.inputs[:, 0],
        some.stretches,
        windows.spread_indices(41, 7, 0),
        len(windows.spread(cut, None, 0)),
        cut.mean(values),
        cut.crossed_mean([values, values**2]),
        [batches(step) for step in (0, 1, 69, 70, 200)],
        spread_windows(texts[0], 5),
        spread_windows(texts[1] % 50, 1),
        [[x.shape, y[0, -1]] for x, y in cut.batches(100, "cpu")],
        refusal(lambda: windows.windows_of(texts[2], 64)),
    ]


def _topics() -> object:
    from benchmarks.instruments import topics

    long = "a passage that is long enough to be told from others, number"
    texts = {f"topic {i}": f"{long} {i % 5}\n\nSee also: {i}\n\n{long} {i}" for i in range(12)}
    return [topics.split_topics(texts), [topics.split_of(name) for name in texts]]


CASES = (
    Case(
        "intervals of means",
        "2 to 51 samples, 2 levels",
        "float64",
        "an interval that is too narrow or too wide",
        _intervals,
    ),
    Case(
        "exponents",
        "5 points, families of 1 and 4",
        "float64",
        "weights or errors that are off",
        _exponents,
    ),
    Case(
        "p values", "families of 1 and 4", "float64", "a side or an order that is lost", _p_values
    ),
    Case(
        "coverage",
        f"{REPEATS} intervals of each kind",
        "float64",
        "an interval that holds too seldom",
        _coverage,
    ),
    Case(
        "level and power",
        f"{REPEATS} tests at 3 exponents",
        "float64",
        "a test that doubts too seldom or too often",
        _level_and_power,
    ),
    Case(
        "planned power",
        "pilots of 4 seeds, 16 and 17 blocks",
        "float64",
        "a run that is planned too small",
        _planned,
    ),
    Case(
        "moments of a product",
        "widths 7 to 1,024, ranks 1 to 300",
        "float64",
        "a law that is off",
        _moments,
    ),
    Case(
        "windows of text",
        "9,000, 130 and 20 tokens",
        "int64",
        "text that is read twice or never",
        _windows,
    ),
    Case("topics", "12 texts", "none", "held-out text that was trained on", _topics),
)
