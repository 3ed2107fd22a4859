"""Rotations turn, and turn at random; one round of Hadamard's is not random enough."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from reference_model.errors import UserError
from reference_model.quantization.codebook import coordinate_cdf
from reference_model.quantization.rotation import haar, hadamard

KINDS = {"haar": haar, "hadamard": hadamard}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [2, 64, 128])
def test_lengths_and_angles_stay(kind: str, width: int) -> None:
    rotation = KINDS[kind](width, seed=3)
    assert (rotation @ rotation.T - torch.eye(width).double()).abs().max() < 1e-13


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_is_one_rotation(kind: str) -> None:
    assert torch.equal(KINDS[kind](64, 1), KINDS[kind](64, 1))
    assert not torch.equal(KINDS[kind](64, 1), KINDS[kind](64, 2))


def test_a_turned_coordinate_follows_the_beta_law_and_an_unturned_one_does_not() -> None:
    # One coordinate per rotation: those of one vector depend on each other.
    width, count = 16, 400
    fixed = torch.zeros(width, dtype=torch.float64)
    fixed[3] = 1
    turned = [float((haar(width, seed) @ fixed)[0]) for seed in range(count)]
    law = stats.kstest(turned, lambda x: coordinate_cdf(np.asarray(x), width))
    assert law.pvalue > 1e-3
    unturned = stats.kstest([float(fixed[0])] * count, lambda x: coordinate_cdf(x, width))
    assert unturned.pvalue < 1e-9


def test_the_diagonal_has_no_sign_of_its_own() -> None:
    # Without the signs of R's diagonal, LAPACK's Q is not uniform: its diagonal leans to one side.
    diagonals = torch.stack([haar(8, seed).diagonal() for seed in range(500)])
    assert abs(float(diagonals.mean())) < 5 * float(diagonals.std()) / diagonals.numel() ** 0.5


def test_one_round_sends_a_single_coordinate_to_equal_magnitudes_and_three_do_not() -> None:
    one = torch.zeros(64, dtype=torch.float64)
    one[5] = 1
    assert float((hadamard(64, 0, rounds=1) @ one).abs().std()) < 1e-12
    assert float((hadamard(64, 0, rounds=3) @ one).abs().std()) > 0.05


@pytest.mark.parametrize("width", [3, 96, 1536])
def test_hadamard_refuses_a_width_that_is_no_power_of_two(width: int) -> None:
    with pytest.raises(UserError, match=f"received {width}; use haar"):
        hadamard(width, 0)
