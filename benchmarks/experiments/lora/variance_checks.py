"""The checks of the variance laws, as functions of samples, and what each is blind to.

Each takes mean squares of s·BA over replicas at several ranks and their relative standard errors,
which the law itself gives (`product_moments`), and returns p values: (..., ranks) become (...).
How often they err is measured in `checks.py`. All take a mean over replicas for
normal, which it nearly is: ‖BA‖² is skewed, and the fewer the replicas the more so.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np

from benchmarks.judging.stats import (
    Array,
    difference_p_value,
    equivalence_p_value,
    holm,
    power_law_slopes,
)

Check = Literal["value", "exponent", "equivalence", "dependence"]
CHECKS: tuple[Check, ...] = get_args(Check)
NOMINAL = 0.05  # each check's level
MARGIN = 0.02  # of an exponent that is called equal to its law


def value_check(means: Array, laws: Array, errors: Array) -> Array:
    """Do the means differ from the law at any rank? Sees size and exponent; Holm over the ranks.

    ``means`` (..., ranks); ``laws`` and the relative ``errors`` of the means, (ranks,).
    """
    return holm(difference_p_value(means / laws, errors, 1.0)).min(axis=-1)


def exponent_check(ranks: Array, means: Array, errors: Array, law: float) -> Array:
    """Does the fitted exponent differ from ``law``? Blind to a factor that all ranks share."""
    slopes, slope_errors = power_law_slopes(ranks, means, errors * means)
    return difference_p_value(slopes, slope_errors, law)


def equivalence_check(ranks: Array, means: Array, errors: Array, law: float) -> Array:
    """Is the exponent shown to lie within `MARGIN` of ``law``? Small p values say that it is."""
    slopes, slope_errors = power_law_slopes(ranks, means, errors * means)
    return equivalence_p_value(slopes, slope_errors, law - MARGIN, law + MARGIN)


def dependence_check(ranks: Array, cross: Array, diagonal: Array, errors: Array) -> Array:
    """Do both factors depend across the rank? Blind to size, and to one dependent factor alone.

    ``cross`` (..., ranks) are mean cross terms T of ‖BA‖², ``diagonal`` what is left of it. T over
    the diagonal has mean 0, with ``errors`` (ranks,) √(2 (r - 1)/(r d n)) over the root of the
    replicas; equicorrelated factors give it the mean (r - 1) ρ_A ρ_B. The ranks are pooled in one
    sum, each by mean over variance, which is by r: the best weights for a ρ that all share.
    """
    pooled = (ranks * cross / diagonal).sum(axis=-1)
    return difference_p_value(pooled, np.sqrt(np.square(ranks * errors).sum(keepdims=True)), 0.0)
