"""TurboQuant's codebook: the best 2^b levels for a coordinate of a random unit vector.

After a random rotation a coordinate x of a unit vector of width d has the density

    f(x) = K (1 − x²)^((d−3)/2) on [−1, 1],  K = Γ(d/2) / (√π Γ((d−1)/2)),

that is, (x + 1)/2 follows Beta((d−1)/2, (d−1)/2) (TurboQuant, 2504.19874, lemma 1). Both integrals
that the method of Lloyd and Max needs have closed forms, so that nothing is integrated by sums.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from reference_model.errors import UserError

Array = NDArray[np.float64]

CONVERGED = 1e-12
MOST_STEPS = 10_000
MOST_BITS = 4


@dataclass(frozen=True)
class Codebook:
    """Levels of unit vectors' coordinates, and what they lose.

    ``levels`` (2^b,) ascending and symmetric about 0; ``edges`` (2^b − 1,), the midpoints between
    them; ``distortion`` E‖x − x̂‖² of a unit vector; of the best levels it is 1 − E⟨x, x̂⟩ as well.
    """

    levels: tuple[float, ...]
    edges: tuple[float, ...]
    distortion: float


def coordinate_cdf(x: Array, width: int) -> Array:
    """P(coordinate ≤ x) for a random unit vector of this width."""
    from scipy.special import betainc  # heavy to import, and only who builds a codebook needs it

    half = (width - 1) / 2
    return betainc(half, half, (1 + x) / 2)


def _partial_mean(low: Array, high: Array, width: int) -> Array:
    """∫ x f(x) dx from low to high."""
    log_k = math.lgamma(width / 2) - math.lgamma((width - 1) / 2) - math.log(math.pi) / 2
    power = (width - 1) / 2
    ends = [(1 - x**2) ** power for x in (low, high)]
    return math.exp(log_k) * (ends[0] - ends[1]) / (width - 1)


@functools.cache
def lloyd_max(width: int, bits: int) -> Codebook:
    """The codebook of 2^bits levels for unit vectors of ``width`` coordinates.

    Edges are midpoints of levels and levels are means between edges (Lloyd 1957, Max 1960), until
    no level moves by 1e-12. With 0 bits the one level is 0, and all is lost: distortion 1. Raises
    `UserError` on a width below 2 or a number of bits outside 0 … 4.
    """
    if width < 2:
        raise UserError(f"a vector of width {width} has no direction to quantise; use 2 or more")
    if not 0 <= bits <= MOST_BITS:
        raise UserError(f"bits={bits!r} is no size of a codebook; use 0 to {MOST_BITS}")
    spread = min(3 / math.sqrt(width), 1 - 2.0**-bits)
    levels = np.linspace(-spread, spread, 2**bits)
    for _ in range(MOST_STEPS):
        edges = np.concatenate(([-1.0], (levels[1:] + levels[:-1]) / 2, [1.0]))
        masses = np.diff(coordinate_cdf(edges, width))
        moved = _partial_mean(edges[:-1], edges[1:], width) / masses
        moved = (moved - moved[::-1]) / 2  # exactly symmetric
        change = float(np.abs(moved - levels).max())
        levels = moved
        if change < CONVERGED:
            break
    else:
        raise ArithmeticError(f"no codebook of {bits} bits for width {width}: levels still move")
    return _with_its_loss(levels, width)


def uniform(width: int, bits: int) -> Codebook:
    """2^bits equally spaced levels, with the step that loses least under the same law."""
    from scipy.optimize import minimize_scalar

    if width < 2 or not 1 <= bits <= MOST_BITS:
        raise UserError(f"no uniform levels of {bits} bits for width {width}; use 1 to {MOST_BITS}")
    places = np.arange(2**bits) - (2**bits - 1) / 2
    most = 2 / len(places)  # the outermost levels then lie on the sphere
    found = minimize_scalar(
        lambda step: _with_its_loss(step * places, width).distortion,
        bounds=(0, most),
        method="bounded",
        options={"xatol": CONVERGED},
    )
    return _with_its_loss(float(found.x) * places, width)


def _with_its_loss(levels: Array, width: int) -> Codebook:
    """Any levels, ascending: E‖x − x̂‖² = 1 − 2 D Σ m c + D Σ p c², m the partial means of x."""
    edges = (levels[1:] + levels[:-1]) / 2
    ends = np.concatenate(([-1.0], edges, [1.0]))
    masses, means = np.diff(coordinate_cdf(ends, width)), _partial_mean(ends[:-1], ends[1:], width)
    distortion = 1 + width * float(masses @ levels**2 - 2 * means @ levels)
    return Codebook(tuple(map(float, levels)), tuple(map(float, edges)), distortion)


def upper_bound(bits: int) -> float:
    """The paper's bound on the distortion at ``bits`` bits: (√3 π / 2) 4^−b (theorem 1)."""
    return math.sqrt(3) * math.pi / 2 * 4.0**-bits


def lower_bound(bits: int) -> float:
    """What no quantiser of ``bits`` bits a coordinate goes below: 4^−b (theorem 3)."""
    return 4.0**-bits
