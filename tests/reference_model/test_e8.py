"""The box of E8 finds its nearest point, wastes no word, and errs less than scalars do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.codebook import lloyd_max
from reference_model.quantization.codec import nbytes_of
from reference_model.quantization.e8 import (
    ONE_STEP,
    STEPS,
    E8Box,
    bytes_of,
    nearest,
    of_words,
    points_of,
    words_of,
)
from tests.reference_model.sines import relative_error, sines

# Errors of standard normal vectors, as they were told: the best of 13 steps, and of one step.
TOLD = {64: {2: 0.0967, 3: 0.0280, 4: 0.0076}, 128: {2: 0.0995, 3: 0.0298, 4: 0.0086}}
ONE = {2: 0.0981, 3: 0.0300, 4: 0.0092}


def of_the_lattice(y: Tensor) -> Tensor:
    """The nearest point of E8 itself: in a box so large that none is near its walls."""
    return points_of(*nearest(y + 0.25, 12)) - 0.25


@pytest.mark.parametrize(
    ("y", "distance"),
    [
        (3 * sines(8), 0.600078),
        (torch.full((8,), 0.5), 0),
        (torch.tensor([0.5] * 7 + [-0.5]), 1),
        (torch.full((8,), 0.25), 0.5),
        (torch.tensor([1.0] + [0.0] * 7), 1),
    ],
)
def test_the_nearest_point_is_as_far_away_as_it_was_told(y: Tensor, distance: float) -> None:
    assert float((of_the_lattice(y) - y).square().sum()) == pytest.approx(distance, abs=2e-6)


def test_the_nearest_point_of_a_vector_is_the_one_that_was_told() -> None:
    assert of_the_lattice(3 * sines(8)).tolist() == [0, 2, -2, 1, -1, 0, -3, -3]


def test_the_second_moment_is_that_of_e8() -> None:
    y = torch.rand(40_000, 8) * 16 - 8
    moment = float((of_the_lattice(y) - y).square().mean())
    assert moment == pytest.approx(0.07166, rel=0.01)  # 0.0833 of whole numbers


def test_a_word_is_a_coset_seven_numbers_and_an_eighth_without_its_parity() -> None:
    y = 1.1 * sines(1, 8)
    n, coset = nearest(y, 2)
    assert n.tolist() == [[-1, 0, -1, 0, -1, -1, -2, -2]]
    assert coset.tolist() == [[1]]
    assert words_of(n[None], coset[None], 2).item() == 2867
    distance = (points_of(n, coset) - y).square().sum()
    assert float(distance) == pytest.approx(0.601635, abs=2e-6)


@pytest.mark.parametrize("bits", STEPS)
def test_every_word_is_a_point_of_its_own_and_comes_back(bits: int) -> None:
    words = torch.arange(2**16) if bits == 2 else torch.randint(2 ** (8 * bits), (20_000,))
    words = words.int()  # of 4 bits the highest is its sign
    n, coset = of_words(bytes_of(words[:, None], bits), bits)
    assert (n.sum(-1) % 2 == 0).all()
    assert n.min() == -(2 ** (bits - 1))
    assert n.max() == 2 ** (bits - 1) - 1
    assert torch.equal(words_of(n, coset, bits)[:, 0], words)


def test_the_point_found_is_the_nearest_of_all_in_the_box() -> None:
    words = torch.arange(2**16)
    points = points_of(*of_words(bytes_of(words[:, None], 2), 2))[:, 0]
    y = torch.randn(200, 8) * torch.linspace(0.3, 3, 200)[:, None]  # far outside, too
    found = (points_of(*nearest(y, 2)) - y).square().sum(-1)
    least = torch.stack([(points - each).square().sum(-1).min() for each in y])
    assert (found - least).abs().max() < 1e-5


@pytest.mark.parametrize("width", TOLD)
@pytest.mark.parametrize("bits", STEPS)
def test_normal_vectors_lose_what_was_told_and_less_than_by_scalars(width: int, bits: int) -> None:
    x = torch.randn(4000, width)
    found = relative_error(E8Box(width, bits), x)
    assert found == pytest.approx(TOLD[width][bits], rel=0.01)
    assert found < 0.93 * lloyd_max(width, bits).distortion
    if width == 64:
        assert relative_error(E8Box(64, bits, search=False), x) == pytest.approx(
            ONE[bits], rel=0.03
        )


@pytest.mark.parametrize("bits", STEPS)
def test_the_one_step_is_near_the_best_of_all_single_ones(bits: int) -> None:
    x, codec = torch.randn(1000, 64), E8Box(64, bits, search=False)
    found = {}
    for factor in (0.92, 1, 1.08):
        codec.steps = [ONE_STEP[bits] * factor]
        found[factor] = relative_error(codec, x)
    assert min(found, key=lambda factor: found[factor]) == 1


@pytest.mark.parametrize("bits", STEPS)
def test_an_unbiased_scale_gives_each_vector_its_product_with_itself(bits: int) -> None:
    x = torch.randn(1000, 64)
    x[0] = 0
    plain, unbiased = (E8Box(64, bits, scale=scale) for scale in ("least_squares", "unbiased"))
    found = unbiased.decode(unbiased.encode(x))
    assert torch.linalg.vecdot(x, found) == pytest.approx(x.square().sum(-1), rel=2e-3)
    # ‖x − x̂‖² is ‖x‖² D by the least squares, and ‖x‖² D / (1 − D) so.
    error = relative_error(plain, x)
    assert relative_error(unbiased, x) == pytest.approx(error / (1 - error), rel=0.01)


def test_either_rotation_will_do_and_holds_what_it_holds() -> None:
    x = torch.randn(2000, 64)
    codecs = [E8Box(64, 3, rotation=rotation) for rotation in ("hadamard", "haar")]
    assert relative_error(codecs[0], x) == pytest.approx(relative_error(codecs[1], x), rel=0.02)
    assert [nbytes_of(codec.constants) for codec in codecs] == [3 * 64, 64 * 64 * 4]
    assert (codecs[1].unrotate(codecs[1].rotate(x)) - x).abs().max() < 1e-4
    one_hot = torch.eye(64)
    assert relative_error(codecs[0], one_hot) < 0.05


def test_the_error_follows_the_size_and_an_offset_of_all_channels_does_no_harm() -> None:
    x, codec = torch.randn(1000, 64), E8Box(64, 3)
    expected = relative_error(codec, x)
    for factor in (1 / 32, 8):
        assert relative_error(codec, factor * x) == pytest.approx(expected, rel=1e-3)
    assert relative_error(codec, x + 3) < 1.04 * expected


@pytest.mark.parametrize("bits", STEPS)
@pytest.mark.parametrize("size", [0.0, 1.5, -3e-3])
def test_a_vector_of_equal_numbers_in_its_basis_is_exact_to_float16(bits: int, size: float) -> None:
    codec, y = E8Box(64, bits), torch.full((2, 64), size)
    assert (codec.dequantize(codec.quantize(y)) - y).abs().max() <= 2.0**-10 * abs(size)


@pytest.mark.parametrize(("width", "nbytes"), [(64, (18, 26, 34)), (128, (34, 50, 66))])
def test_a_vector_holds_turboquants_bytes(width: int, nbytes: tuple[int, ...]) -> None:
    for bits, held in zip(STEPS, nbytes, strict=True):
        assert nbytes_of(E8Box(width, bits).encode(torch.randn(9, width))) == 9 * held


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 64, "bits": 5}, "bits=5 has no box; use one of 2, 3, 4"),
        ({"width": 60, "bits": 2}, "60 channels are no multiple of 8"),
        ({"width": 64, "bits": 2, "rotation": "none"}, "use one of hadamard, haar"),
        ({"width": 64, "bits": 2, "scale": "norm"}, "use one of least_squares, unbiased"),
        ({"width": 96, "bits": 2}, "Hadamard's matrix over 96 of 96 channels does not exist"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        E8Box(**wrong)
