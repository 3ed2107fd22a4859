"""How often a mean over seeds and blocks of text would be told from a border: before it is read.

A pilot tells what scatters; `crossed_power` tells what more seeds or more text make of that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class Scatter:
    """Variances of one value: what each seed, stretch and block within it adds, and both together.

    All blocks of a stretch share what it adds, all seeds what a block adds, and so on.
    """

    of_seeds: float
    of_stretches: float
    of_blocks: float
    of_both: float


@dataclass(frozen=True)
class Design:
    """How many seeds read how many blocks, and in how many stretches of text these lie."""

    seeds: int
    blocks: int
    stretches: int


def scatter_of(values: ArrayLike, clusters: ArrayLike) -> Scatter:
    """Of a pilot's ``values`` (seeds, blocks), by the mean squares of an analysis of variance.

    ``clusters`` (blocks,) are the stretches, which may differ in size (Searle, Casella and
    McCulloch, Variance Components, chapter 3). What comes out below 0 is 0. Raises ValueError where
    there are not two seeds and two stretches, or no stretch has two blocks.
    """
    table = np.asarray(values, dtype=np.float64)
    seeds, blocks = table.shape
    _, index, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    if seeds < 2 or not 2 <= len(sizes) < blocks:
        raise ValueError(
            f"need two seeds, two stretches and more blocks than stretches, got {seeds} seeds and "
            f"{blocks} blocks in {len(sizes)} stretches"
        )
    means = table.mean(axis=0)
    rest = table - table.mean(axis=1, keepdims=True) - means + table.mean()
    of_both = float((rest**2).sum()) / ((seeds - 1) * (blocks - 1))
    of_seeds = float(table.mean(axis=1).var(ddof=1)) - of_both / blocks
    of_stretch = np.bincount(index, means) / sizes
    within = float(((means - of_stretch[index]) ** 2).sum()) / (blocks - len(sizes))
    between = float(sizes @ (of_stretch - means.mean()) ** 2) / (len(sizes) - 1)
    size = (blocks - float(sizes @ sizes) / blocks) / (len(sizes) - 1)
    return Scatter(
        max(0.0, of_seeds),
        max(0.0, (between - within) / size),
        max(0.0, within - of_both / seeds),
        of_both,
    )


def crossed_power(distance: float, scatter: Scatter, design: Design, level: float = 0.95) -> float:
    """How often a mean that truly lies so far from a border has its interval on its side of it.

    The interval is that of `stats.crossed_mean_interval`: it counts what is neither the seed's nor
    the text's twice, and has the degrees of freedom of the fewer.
    """
    from scipy import stats

    seeds, blocks, stretches = design.seeds, design.blocks, design.stretches
    of_seeds = (scatter.of_seeds + scatter.of_both / blocks) / seeds
    of_text = scatter.of_stretches / stretches
    of_text += (scatter.of_blocks + scatter.of_both / seeds) / blocks
    degrees = min(seeds, stretches) - 1
    errors = abs(distance) / math.sqrt(of_seeds + of_text)
    return float(stats.nct.sf(stats.t.ppf((1 + level) / 2, degrees), degrees, errors))
