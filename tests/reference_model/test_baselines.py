"""The peers round as their formats say, and hold the bits that they are compared at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from reference_model.errors import UserError
from reference_model.quantization.baselines import (
    AbsmaxBlocks,
    Float8,
    Int8,
    PerChannel,
    PerToken,
)
from reference_model.quantization.codec import Codec, nbytes_of

# codec → bits per value of a head of 64, scales included
CODECS: dict[str, tuple[Callable[[], Codec], float]] = {
    "token 2": (lambda: PerToken(64, 2), 2.5),
    "token 3": (lambda: PerToken(64, 3), 3.5),
    "token 4": (lambda: PerToken(64, 4), 4.5),
    "channel 2": (lambda: PerChannel(64, 2), 3.0),
    "channel 3": (lambda: PerChannel(64, 3), 4.0),
    "channel 4": (lambda: PerChannel(64, 4), 5.0),
    "blocks 2": (lambda: AbsmaxBlocks(64, 2), 2.5),
    "blocks 3": (lambda: AbsmaxBlocks(64, 3), 3.5),
    "blocks 4": (lambda: AbsmaxBlocks(64, 4), 4.5),
    "rotated blocks 3": (lambda: AbsmaxBlocks(64, 3, seed=0), 3.5),
    "int8": (lambda: Int8(64), 8.25),
    "float8": (lambda: Float8(64), 8.0),
}


@pytest.fixture(params=CODECS)
def codec(request: pytest.FixtureRequest) -> Codec:
    return CODECS[request.param][0]()


@pytest.mark.parametrize("name", CODECS)
def test_the_bits_of_a_value_are_those_of_the_bytes_held(name: str) -> None:
    build, bits = CODECS[name]
    codec = build()
    parts = codec.encode(torch.randn(3, 64, 64))
    assert codec.bits_per_value == bits
    assert nbytes_of(parts) * 8 == 3 * 64 * 64 * bits
    for part, (count, dtype) in zip(parts, codec.layout, strict=True):
        assert (part.shape, part.dtype) == ((3, 64 // codec.block, count), dtype)


def test_the_error_is_at_most_half_a_step(codec: Codec) -> None:
    x = torch.randn(4, 64, 64) * 3
    error = codec.rotate(x) - codec.dequantize(codec.encode(x))
    if isinstance(codec, Float8):
        assert (error.abs() <= 2.0**-4 * x.abs() + 2.0**-10).all()
        return
    if isinstance(codec, AbsmaxBlocks):
        *_, step = codec.encode(x)
        # The end that has no code of its own, opposite the largest magnitude, is cut off.
        most = step.float().abs().repeat_interleave(32, dim=-1)
        within = error.abs() <= most * 0.5 * 1.001
        assert float(within.double().mean()) > 0.95
        assert (error.abs() <= most * 1.001).all()
        return
    parts = codec.encode(x)
    step = parts[-1] if isinstance(codec, Int8) else parts[-2]
    if isinstance(codec, PerChannel):
        step = step.repeat_interleave(codec.block, dim=-2)
    # float16 steps and offsets cut off an end by some of their own rounding.
    assert (error.abs() <= step.float() * 0.5 * 1.02 + 2e-3 * x.abs().max()).all()


def test_four_bits_in_blocks_are_q4_0() -> None:
    x = torch.linspace(-4, 3.5, 32)  # −8 … 7 halves: the grid of a step of 0.5
    codec = AbsmaxBlocks(32, 4)
    step = codec.encode(x[None])[-1]
    assert float(step[0, 0]) == 0.5
    flipped = codec.encode(-x[None])
    assert float(flipped[-1][0, 0]) == -0.5  # the largest magnitude is code −8, whatever its sign
    grid = torch.arange(-8, 8).repeat_interleave(2)[None] * 0.5
    assert torch.equal(codec.decode(codec.encode(grid)), grid)
    assert torch.equal(codec.decode(codec.encode(-grid)), -grid)


def test_a_channel_that_is_large_in_all_tokens_harms_the_others_per_token_only() -> None:
    x = torch.randn(1, 64, 64)
    x[..., 9] += 100
    others = [c for c in range(64) if c != 9]

    def error(codec: Codec) -> float:
        return float((codec.decode(codec.encode(x)) - x)[..., others].square().mean())

    assert error(PerChannel(64, 3)) < 0.1
    assert error(PerToken(64, 3)) > 0.5


def test_a_rotation_spreads_an_outlier_over_its_block() -> None:
    x = torch.randn(200, 64)
    x[:, 3] *= 30

    plain, turned = AbsmaxBlocks(64, 3), AbsmaxBlocks(64, 3, seed=1)
    kept = [c for c in range(32) if c != 3]
    lost = (plain.decode(plain.encode(x)) - x)[:, kept].square().mean()
    assert lost > 0.6  # nearly all its neighbours are rounded to 0
    assert (turned.decode(turned.encode(x)) - x)[:, kept].square().mean() < 0.75 * lost


def test_numbers_above_the_largest_float8_become_it() -> None:
    x = torch.tensor([[1e6, -1e6] * 32])
    assert Float8(64).decode(Float8(64).encode(x)).abs().eq(448).all()


def test_a_vector_of_zeros_stays_one(codec: Codec) -> None:
    assert codec.decode(codec.encode(torch.zeros(32, 64))).eq(0).all()


def test_a_constant_vector_has_no_step_and_stays_what_it_is(codec: Codec) -> None:
    x = torch.full((32, 64), 1.5)
    exact = x.half().float()
    if "rotated" not in codec.name:  # turned, it is constant no more
        assert (codec.decode(codec.encode(x)) - exact).abs().max() <= 0.01 * 1.5


def test_blocks_refuse_a_width_they_do_not_fill() -> None:
    with pytest.raises(UserError, match="do not fill a width of 40; use PerToken"):
        AbsmaxBlocks(40, 4)
