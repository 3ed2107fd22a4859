"""The codebook is the exact one, and its distortion what a plain integral says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, special, stats

from reference_model.errors import UserError
from reference_model.quantization.codebook import (
    coordinate_cdf,
    lloyd_max,
    lower_bound,
    upper_bound,
)

# (width, bits) → positive levels times √width, to the digits given.
LEVELS = {
    (64, 1): [0.80101],
    (64, 2): [0.45212, 1.49997],
    (64, 3): [0.24375, 0.75066, 1.32934, 2.11131],
    (64, 4): [0.12735, 0.38472, 0.65049, 0.93189, 1.23940, 1.59085, 2.02331, 2.64637],
    (128, 2): [0.45245, 1.50519],
    (128, 3): [0.24442, 0.75333, 1.33660, 2.13147],
    (128, 4): [0.12787, 0.38638, 0.65362, 0.93710, 1.24777, 1.60434, 2.04593, 2.68886],
}
DISTORTION = {
    (64, 1): 0.358387,
    (64, 2): 0.114526,
    (64, 3): 0.033391,
    (64, 4): 0.009132,
    (128, 2): 0.116000,
    (128, 3): 0.033966,
    (128, 4): 0.009315,
    (1536, 2): 0.117358,
    (1536, 3): 0.034499,
    (1536, 4): 0.009485,
}
ALL = [(width, bits) for width in (3, 32, 64, 96, 128, 1536) for bits in (1, 2, 3, 4)]


def density(x: np.ndarray, width: int) -> np.ndarray:
    log_k = special.gammaln(width / 2) - special.gammaln((width - 1) / 2) - math.log(math.pi) / 2
    return np.exp(log_k) * (1 - x**2) ** ((width - 3) / 2)


@pytest.mark.parametrize("shape", LEVELS)
def test_levels_are_those_of_the_exact_table(shape: tuple[int, int]) -> None:
    width, bits = shape
    levels = np.array(lloyd_max(width, bits).levels) * math.sqrt(width)
    assert np.abs(levels[len(levels) // 2 :] - LEVELS[shape]).max() < 1e-5
    assert np.array_equal(levels, -levels[::-1])


@pytest.mark.parametrize("shape", DISTORTION)
def test_distortions_are_those_of_the_exact_table(shape: tuple[int, int]) -> None:
    assert lloyd_max(*shape).distortion == pytest.approx(DISTORTION[shape], abs=6e-7)


@pytest.mark.parametrize(("width", "bits"), ALL)
def test_each_level_is_the_mean_between_its_edges(width: int, bits: int) -> None:
    # By quadrature, which the code does without.
    book = lloyd_max(width, bits)
    edges = [-1.0, *book.edges, 1.0]
    for level, low, high in zip(book.levels, edges, edges[1:], strict=False):
        mass = integrate.quad(density, low, high, (width,), epsabs=1e-13)[0]
        mean = integrate.quad(lambda x: x * density(x, width), low, high, epsabs=1e-13)[0] / mass
        assert level == pytest.approx(mean, abs=1e-9)


@pytest.mark.parametrize(("width", "bits"), ALL)
def test_the_distortion_is_the_integral_of_the_squared_error(width: int, bits: int) -> None:
    book = lloyd_max(width, bits)
    edges = [-1.0, *book.edges, 1.0]
    error = sum(
        integrate.quad(lambda x: (x - level) ** 2 * density(x, width), low, high, epsabs=1e-13)[0]  # noqa: B023
        for level, low, high in zip(book.levels, edges, edges[1:], strict=False)
    )
    assert book.distortion == pytest.approx(width * error, rel=1e-8)


@pytest.mark.parametrize("width", [3, 64, 1536])
def test_the_law_of_a_coordinate_is_the_beta_law(width: int) -> None:
    x = np.linspace(-0.9, 0.9, 7)
    half = (width - 1) / 2
    assert coordinate_cdf(x, width) == pytest.approx(stats.beta.cdf((1 + x) / 2, half, half))
    by_integral = [integrate.quad(density, -1, end, (width,), limit=200)[0] for end in x]
    assert coordinate_cdf(x, width) == pytest.approx(by_integral, abs=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_the_distortion_lies_between_the_papers_bounds(bits: int) -> None:
    for width in (64, 128, 1536):
        assert lower_bound(bits) <= lloyd_max(width, bits).distortion <= upper_bound(bits)


def test_without_a_bit_all_is_lost() -> None:
    assert lloyd_max(64, 0).levels == (0.0,)
    assert lloyd_max(64, 0).distortion == 1


@pytest.mark.parametrize(("width", "bits"), [(1, 3), (64, 5), (64, -1)])
def test_what_has_no_codebook_is_refused(width: int, bits: int) -> None:
    with pytest.raises(UserError, match=r"use 2 or more|use 0 to 4"):
        lloyd_max(width, bits)
