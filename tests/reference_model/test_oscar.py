"""OSCAR cuts, steps and packs as its kernels do, and turns by what a text's queries read."""

from __future__ import annotations

import pytest
import torch

from reference_model.errors import UserError
from reference_model.quantization.codec import nbytes_of
from reference_model.quantization.oscar import KEY_CLIP, VALUE_CLIP, Oscar, oscar_rotation
from reference_model.quantization.packing import unpack
from reference_model.quantization.rotation import sylvester
from tests.reference_model.sines import relative_error, sines, squared_error

HADAMARD = sylvester(64) / 8
CODES = "1 0 2 1 2 0 1 2 2 1 2 2 1 1 2 0"


@pytest.mark.parametrize(
    ("clip", "step", "error"), [(KEY_CLIP, 0.94399112, 4.25724), (VALUE_CLIP, 0.89992952, 3.86518)]
)
def test_a_vector_has_the_step_zero_and_error_that_were_told(
    clip: float, step: float, error: float
) -> None:
    codec = Oscar(64, HADAMARD, clip)
    held = codec.encode(sines(1, 64))
    assert float(held[1]) == pytest.approx(step, abs=2e-7)
    assert float(held[2]) == 1.5
    assert squared_error(codec, sines(1, 64)) == pytest.approx(error, abs=1e-5)


def test_a_byte_holds_channels_a_quarter_of_a_head_apart() -> None:
    held, *_ = Oscar(64, HADAMARD).encode(sines(1, 64))
    told = [int(code) for code in CODES.split()]  # of channels 0 to 15: the low two bits
    assert (held[0] & 3).tolist() == told
    y, codec = torch.zeros(1, 64), Oscar(64, HADAMARD)
    y[0, [0, 16, 32, 48]] = torch.tensor([-1.5, -0.5, 0.5, 1.5])
    y[0, [1, 2]] = torch.tensor([-1.5, 1.5])  # so that the cut takes nothing
    y[0, [3, 4]] = torch.tensor([-1.0, 1.0])  # between two codes
    held, *_ = codec.quantize(y)
    assert int(held[0, 0]) == 0b11_10_01_00
    codes = unpack((held,), 2, 64).view(16, 4).T.flatten()
    assert codes[[0, 16, 32, 48]].tolist() == [0, 1, 2, 3]
    assert codes[[3, 4]].tolist() == [1, 3]  # a half goes up


@pytest.mark.parametrize(("clip", "told"), [(0.96, 0.156), (0.92, 0.124), (0.999, 0.202)])
def test_normal_vectors_lose_what_was_told(clip: float, told: float) -> None:
    assert relative_error(Oscar(64, HADAMARD, clip), torch.randn(8000, 64)) == pytest.approx(
        told, abs=1.5e-3
    )


@pytest.mark.parametrize("width", [64, 128])
def test_a_vector_holds_its_bytes_and_the_rotation_is_held_once(width: int) -> None:
    rotation, x = torch.eye(width), torch.randn(10, width)
    for numbers, nbytes in ((torch.float32, (24, 40)), (torch.bfloat16, (20, 36))):
        codec = Oscar(width, rotation, numbers=numbers)
        assert nbytes_of(codec.encode(x)) == 10 * nbytes[width == 128]
        assert nbytes_of(codec.constants) == width**2 * 4


def test_steps_in_bfloat16_cost_next_to_nothing() -> None:
    x = torch.randn(4000, 64)
    small = relative_error(Oscar(64, HADAMARD, numbers=torch.bfloat16), x)
    assert small == pytest.approx(relative_error(Oscar(64, HADAMARD), x), rel=1e-3)


def test_the_rotation_has_the_eigenvectors_of_the_moment_and_no_variance_is_left_uneven() -> None:
    x = torch.randn(20_000, 64) * torch.logspace(0, 2, 64)
    moment = x.double().mT @ x.double() / len(x)
    rotation = oscar_rotation(moment)
    assert (rotation @ rotation.T - torch.eye(64)).abs().max() < 1e-5
    spread = (x @ rotation).square().mean(0)
    assert float(spread.max() / spread.min()) < 1.2
    assert float(x.square().mean(0).max() / x.square().mean(0).min()) > 1000


def test_the_permutation_does_nothing_in_a_group_that_is_the_whole_vector() -> None:
    x = torch.randn(500, 64) * torch.logspace(0, 1, 64)
    moment = x.double().mT @ x.double()
    vectors = torch.linalg.eigh(moment).eigenvectors
    without = Oscar(64, vectors @ HADAMARD)
    assert relative_error(Oscar(64, oscar_rotation(moment)), x) == pytest.approx(
        relative_error(without, x), rel=1e-5
    )
    order = (oscar_rotation(moment).T @ (vectors @ HADAMARD).float()).abs().argmax(1)
    assert sorted(order.tolist()) == list(range(64))
    # The first in bit-reversed order are the channels 0, 32, 16, 48, by falling eigenvalue.
    assert order[[0, 32, 16, 48]].tolist() == [63, 62, 61, 60]


def test_a_direction_that_all_channels_share_is_cut_away_without_signs_and_kept_with_them() -> None:
    nothing = torch.eye(64)  # a moment that prefers no direction
    x = torch.full((1, 64), 1.5)
    assert relative_error(Oscar(64, oscar_rotation(nothing)), x) == 1  # one coordinate, cut to 0
    signed = Oscar(64, oscar_rotation(nothing, seed=0))
    assert relative_error(signed, x) < 0.2
    y = torch.randn(300, 64) + 4
    unsigned = relative_error(Oscar(64, oscar_rotation(nothing)), y)
    assert relative_error(signed, y) < 0.3 * unsigned


@pytest.mark.parametrize("size", [0.0, 1.5, -2e4])
def test_equal_numbers_in_its_basis_are_exact(size: float) -> None:
    codec, y = Oscar(64, HADAMARD), torch.full((2, 64), size)
    assert (codec.dequantize(codec.quantize(y)) - y).abs().max() <= 2.0**-11 * abs(size)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 192}, "groups of 128 channels, four codes a byte, do not fill a width of 192"),
        ({"width": 128}, r"a rotation of 128 channels is \(128, 128\), received \(64, 64\)"),
        ({"width": 64, "clip": 1.0}, "clip=1.0 is no share of the magnitudes"),
    ],
)
def test_what_cannot_be_built_is_refused(wrong: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Oscar(**{"rotation": HADAMARD, **wrong})
