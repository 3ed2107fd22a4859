"""Which of two formats is better: paired differences, and what holds for all pairs at once.

Values are (seeds, units): every row read the same windows, or was asked the same. A row that draws
nothing has one seed and stands beside each seed of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.judging.stats import Estimate, crossed_mean_interval, holm, student_p_value

Array = NDArray[np.float64]
Outcome = Literal["decided", "equal", "open"]

LEVEL = 0.95
MARGIN = 0.002  # nats a token: KL that are no further apart count as the same
BETWEEN = " − "  # the names of a pair
REACH = 0.35  # bits a value around TurboQuant's, of what is near to its 3 bits, or to its 4
AS_LARGE = (
    0.1  # bits a value: rows further apart are not compared, but stand on the frontier or not
)


@dataclass(frozen=True)
class Units:
    """What was drawn beside the seeds: windows of text, prompts, or needles.

    ``clusters`` (units,): those of one number are alike; None: each stands alone. ``population`` is
    what an interval over them speaks of.
    """

    clusters: NDArray[np.int64] | None
    population: str


@dataclass(frozen=True)
class Pair:
    """Two rows, and the difference of the first from the second."""

    first: str
    second: str
    difference: Estimate

    @property
    def name(self) -> str:
        return f"{self.first}{BETWEEN}{self.second}"


def paired(first: ArrayLike, second: ArrayLike, units: Units, level: float = LEVEL) -> Estimate:
    """Mean of ``first`` − ``second``, (seeds, units) each."""
    difference = np.asarray(first) - np.asarray(second)
    return crossed_mean_interval(difference, units.clusters, level).of(units.population)


def all_pairs(
    values: Mapping[str, ArrayLike], bits: Mapping[str, float], units: Units
) -> list[Pair]:
    """Of rows by name, those that hold as many bits compared with each other."""
    return [
        Pair(one, other, paired(values[one], values[other], units))
        for one, other in combinations(values, 2)
        if round(abs(bits[one] - bits[other]), 4) <= AS_LARGE
    ]


def outcomes(differences: Sequence[Estimate]) -> list[Outcome]:
    """Of all pairs of a set.

    equal: the 95 % interval lies within the margin; decided: otherwise, where it is no chance after
    Holm's correction over all of the set.
    """
    adjusted = holm([student_p_value(difference) for difference in differences])
    return [_outcome(each, float(p)) for each, p in zip(differences, adjusted, strict=True)]


def _outcome(difference: Estimate, p: float) -> Outcome:
    low, high = difference.interval
    if low >= -MARGIN and high <= MARGIN:
        return "equal"
    return "decided" if p < 1 - LEVEL else "open"


def strongest(
    rivals: Mapping[str, ArrayLike],
    ours: ArrayLike,
    units: Units,
    lower_is_better: bool = True,
) -> tuple[str, Estimate] | None:
    """The rival that speaks most against ours, and its difference from ours.

    Its interval is wide enough to hold for all rivals at once (Bonferroni). Of those that are
    better with an interval that excludes 0 it is the surest; where there is none, the one whose
    interval reaches furthest to the better side. So the interval lies on the worse side of 0 only
    where those of all do.
    """
    if not rivals:
        return None
    level = 1 - (1 - LEVEL) / len(rivals)
    found = {name: paired(each, ours, units, level) for name, each in rivals.items()}
    sign = 1 if lower_is_better else -1

    def ends(name: str) -> tuple[float, float]:
        low, high = (sign * end for end in found[name].interval)
        return min(low, high), max(low, high)

    surest = min(found, key=lambda name: ends(name)[1])
    if ends(surest)[1] >= 0:
        surest = min(found, key=lambda name: ends(name)[0])
    return surest, found[surest]


def near(bits: Mapping[str, float], center: float) -> list[str]:
    """Names of the rows that hold about as many bits a value."""
    return [name for name, each in bits.items() if abs(each - center) <= REACH]
