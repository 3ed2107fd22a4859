"""Sums and differences are Hadamard's matrix, with signs or without, over whole heads or blocks."""

from __future__ import annotations

import pytest
import torch

from reference_model.errors import UserError
from reference_model.quantization.codec import Parts, nbytes_of
from reference_model.quantization.hadamard import HadamardRotated, walsh_hadamard
from reference_model.quantization.rotation import hadamard, random_signs, sylvester


class Turned(HadamardRotated):
    """A basis and nothing else."""

    name, layout = "turned", ()

    def __init__(self, width: int, spread: int, seed: int | None, rounds: int = 1) -> None:
        self.width = width
        self.set_basis(width, spread, seed, rounds)

    def quantize(self, x: torch.Tensor) -> Parts:
        return (x,)

    def dequantize(self, parts: Parts) -> torch.Tensor:
        return parts[0]


@pytest.mark.parametrize("size", [1, 2, 16, 64])
def test_sums_and_differences_multiply_by_sylvesters_matrix(size: int) -> None:
    x = torch.randn(3, 5, 64, dtype=torch.float64)
    expected = x.unflatten(-1, (-1, size)) @ sylvester(size) / size**0.5
    assert (walsh_hadamard(x, size) - expected.flatten(-2)).abs().max() < 1e-14


@pytest.mark.parametrize("rounds", [1, 3])
def test_with_signs_it_is_the_rotation_of_the_same_seed(rounds: int) -> None:
    x = torch.randn(7, 64)
    turned, rotation = Turned(64, 64, 5, rounds), hadamard(64, 5, rounds).float()
    assert (turned.rotate(x) - x @ rotation.T).abs().max() < 1e-5
    assert nbytes_of(turned.constants) == rounds * 64  # and no matrix


@pytest.mark.parametrize("spread", [1, 32, 64, 192])
@pytest.mark.parametrize(("seed", "rounds"), [(None, 1), (0, 1), (3, 3)])
def test_turning_back_undoes_turning_and_keeps_products(
    spread: int, seed: int | None, rounds: int
) -> None:
    if spread == 192:
        with pytest.raises(UserError, match="192 of 192 channels does not exist; use a power of"):
            Turned(192, spread, seed)
        return
    x, q = torch.randn(2, 4, 6, 192)
    turned = Turned(192, spread, seed, rounds)
    assert (turned.unrotate(turned.rotate(x)) - x).abs().max() < 1e-5
    assert (turned.rotate(q) @ turned.rotate(x).mT - q @ x.mT).abs().max() < 1e-4


def test_without_signs_what_all_channels_share_becomes_one_coordinate_and_with_signs_not() -> None:
    shared = torch.ones(1, 64)
    assert Turned(64, 64, None).rotate(shared)[0].tolist() == [8.0] + [0.0] * 63
    assert Turned(64, 64, 0).rotate(shared).abs().max() < 4
    assert not Turned(64, 64, None).constants


def test_the_same_vector_is_turned_to_the_same_bits_in_any_company() -> None:
    x, turned = torch.randn(300, 64), Turned(64, 64, 0, 3)
    whole = turned.rotate(x)
    for piece in (1, 7, 128):
        parts = torch.cat([turned.rotate(part) for part in x.split(piece)])
        assert torch.equal(parts, whole)


def test_signs_are_as_often_plus_as_minus_and_differ_between_rounds_and_seeds() -> None:
    signs = random_signs(4096, 0, 2)
    assert signs.abs().eq(1).all()
    assert signs.double().mean(1).abs().max() < 0.1
    assert not torch.equal(signs[0], signs[1])
    assert not torch.equal(signs, random_signs(4096, 1, 2))
