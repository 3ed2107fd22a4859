"""Four-bit floats in blocks: NVFP4 with a scale of 8 bits for 16 values, MXFP4 with one for 32.

A value is E2M1: a sign and one of eight magnitudes, whose spacing grows with them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.baselines import LARGEST_E4M3, nonzero
from reference_model.quantization.codec import Codec, Parts
from reference_model.quantization.packing import pack, plane_widths, unpack

NV_BLOCK, MX_BLOCK = 16, 32
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
LARGEST_E2M1 = MAGNITUDES[-1]
BIAS, NO_NUMBER = 127, 255  # of a scale in E8M0: 2^(byte − 127), and a byte for what is none
# How MXFP4 finds a block's power of two: the specification's, or the largest value rounded to the
# nearest E2M1 first, so that fewer values are cut.
PowerRule = Literal["floor", "even"]


def to_e2m1(x: Tensor) -> Tensor:
    """The nearest code, a sign above three bits of magnitude: uint8. Beyond 6 it is that of 6."""
    size, code = x.abs(), (x < 0).to(torch.uint8) << 3
    for index, (low, high) in enumerate(pairwise(MAGNITUDES)):
        middle = (low + high) / 2
        code += size >= middle if index % 2 else size > middle  # a tie has the even code
    return code


def from_e2m1(codes: Tensor) -> Tensor:
    """Codes uint8 → the numbers that they stand for, float32."""
    levels = torch.tensor([*MAGNITUDES, *(-each for each in MAGNITUDES)], device=codes.device)
    return levels[codes.long()]


class _Fp4(Codec):
    """Codes in E2M1, packed, and a scale of 8 bits a block."""

    def set_layout(self, width: int, block: int, scale: torch.dtype) -> None:
        if width % block:
            raise UserError(
                f"{self.name} has blocks of {block}, which do not fill a width of {width}; use a "
                f"multiple of {block}"
            )
        self.width, self.values = width, block
        planes = tuple((n, torch.uint8) for n in plane_widths(4, width))
        self.layout = (*planes, (width // block, scale))

    def blocks(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.values))  # (…, D/block, block)

    def packed(self, x: Tensor, scales: Tensor) -> tuple[Tensor, ...]:
        """Blocks over their scales (…, D/block, 1), which decode to these very numbers."""
        return pack(to_e2m1(x / nonzero(scales)).flatten(-2), 4)

    def numbers(self, planes: tuple[Tensor, ...], scales: Tensor) -> Tensor:
        codes = self.blocks(unpack(planes, 4, self.width))
        return (from_e2m1(codes) * scales[..., None]).flatten(-2)


class NVFP4(_Fp4):
    """Blocks of 16 with a scale in E4M3, times one float32 ``scale`` for all of a layer's vectors.

    ``scale`` is known beforehand: `nvfp4_scale` of what a calibration text holds. Larger values
    than it has room for are cut; much smaller ones become 0, which 1.0 does to small tensors.
    """

    name = "NVFP4"

    def __init__(self, width: int, scale: float = 1.0) -> None:
        self.set_layout(width, NV_BLOCK, torch.float8_e4m3fn)
        self.scale = torch.tensor(scale, dtype=torch.float32)

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return (self.scale,)

    def quantize(self, x: Tensor) -> Parts:
        blocks = self.blocks(x)
        largest = blocks.abs().amax(dim=-1)
        wanted = largest / LARGEST_E2M1 / self.scale
        # What is no number has no scale either, and is not cut to the largest.
        kept = torch.where(largest.isfinite(), wanted.clamp(max=LARGEST_E4M3), torch.nan)
        scales = kept.to(torch.float8_e4m3fn)
        return *self.packed(blocks, (scales.float() * self.scale)[..., None]), scales

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, scales = parts
        return self.numbers(tuple(planes), scales.float() * self.scale)


def nvfp4_scale(largest: float) -> float:
    """With which a largest magnitude has the largest block scale and the largest code."""
    return largest / (LARGEST_E4M3 * LARGEST_E2M1) or 1.0


class MXFP4(_Fp4):
    """Blocks of 32 with a power of two.

    By the specification's rule, ``floor``, what is above 6 of these powers is cut to 6; a largest
    value between 6 and 8 of them is.
    """

    name = "MXFP4"

    def __init__(self, width: int, rule: PowerRule = "floor") -> None:
        if rule not in get_args(PowerRule):
            raise UserError(
                f"rule={rule!r} is not a known choice; use one of {', '.join(get_args(PowerRule))}"
            )
        self.set_layout(width, MX_BLOCK, torch.uint8)
        self.rule = rule
        self.name = "MXFP4" if rule == "floor" else f"MXFP4, {rule}"

    def quantize(self, x: Tensor) -> Parts:
        blocks = self.blocks(x)
        largest = blocks.abs().amax(dim=-1)
        fraction, exponent = torch.frexp(largest)  # in ½ … 1
        if self.rule == "even":  # with one bit after the leading one, 1.75 is the next power
            exponent = exponent + (fraction >= 0.875)
        byte = (exponent - 1 - 2 + BIAS).clamp(0, NO_NUMBER - 1)  # the largest code is 1.5 · 2²
        byte = torch.where(largest == 0, 0, byte)
        byte = torch.where(largest.isfinite(), byte, NO_NUMBER).to(torch.uint8)
        return *self.packed(blocks, _power(byte)[..., None]), byte

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, byte = parts
        return self.numbers(tuple(planes), _power(byte))


def _power(byte: Tensor) -> Tensor:
    """What E8M0 says, float32."""
    power = (byte.int() << 23).view(torch.float32)  # its exponent is float32's own
    power = torch.where(byte == 0, 2.0**-BIAS, power)
    return torch.where(byte == NO_NUMBER, torch.nan, power)
