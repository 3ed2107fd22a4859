"""ggml's blocks of 32 values, to the byte: q4_0, q4_1 and q8_0, and how llama.cpp turns them.

The scale is rounded to float16 when it is stored, and codes are taken by the scale before that.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.baselines import BLOCK
from reference_model.quantization.codec import Parts
from reference_model.quantization.hadamard import HadamardRotated

Role = Literal["keys", "values"]
VALUE_SPREAD = 64  # channels of values that llama.cpp turns together


def llama_cpp_spread(width: int, role: Role) -> int:
    """Channels that llama.cpp (21038) turns together; it turns no width but multiples of 64."""
    if width % VALUE_SPREAD:
        raise UserError(
            f"llama.cpp turns heads of a multiple of {VALUE_SPREAD} channels, received {width}; "
            "use rotated=None"
        )
    return width & -width if role == "keys" else VALUE_SPREAD


class GgmlBlocks(HadamardRotated):
    """Blocks of a vector in one of ggml's types.

    ``rotated``: turned as llama.cpp turns keys or values, or not at all. ``seed`` draws signs that
    come first: ours, llama.cpp has none.
    """

    kind: str
    code: tuple[int, torch.dtype]  # numbers of a block that hold its codes
    halves: int  # float16 numbers of a block

    def __init__(self, width: int, *, rotated: Role | None = None, seed: int | None = None) -> None:
        if width % BLOCK:
            raise UserError(
                f"blocks of {BLOCK} do not fill a width of {width}; use a multiple of {BLOCK}"
            )
        self.width, self.name = width, self.kind
        if rotated is None:
            self.set_basis(width, 1, None)
        else:
            self.name = f"rotated {self.kind}{'' if seed is None else ' with signs'}"
            self.set_basis(width, llama_cpp_spread(width, rotated), seed)
        blocks, (count, dtype) = width // BLOCK, self.code
        self.layout = ((blocks * count, dtype), *[(blocks, torch.float16)] * self.halves)

    def quantize(self, x: Tensor) -> Parts:
        codes, *scales = self.quantize_blocks(x.unflatten(-1, (-1, BLOCK)))
        return codes.flatten(-2), *(scale[..., 0].half() for scale in scales)

    def dequantize(self, parts: Parts) -> Tensor:
        codes, *scales = parts
        blocks = codes.unflatten(-1, (-1, self.code[0]))
        return self.dequantize_blocks(blocks, *(s.float()[..., None] for s in scales)).flatten(-2)

    @abstractmethod
    def quantize_blocks(self, x: Tensor) -> Parts:
        """x (…, D/32, 32) → the codes as they are held, and scales (…, D/32, 1) float32."""

    @abstractmethod
    def dequantize_blocks(self, codes: Tensor, *scales: Tensor) -> Tensor:
        """Back to (…, D/32, 32) float32."""


class Q4_0(GgmlBlocks):
    """The value of largest magnitude is −8 steps, whatever its sign: the other side has only 7."""

    kind, code, halves = "q4_0", (BLOCK // 2, torch.uint8), 1

    def quantize_blocks(self, x: Tensor) -> Parts:
        step = x.gather(-1, x.abs().argmax(dim=-1, keepdim=True)) / -8
        return _nibbles(x, _inverse(step), 8.5), step

    def dequantize_blocks(self, codes: Tensor, *scales: Tensor) -> Tensor:
        return (_of_nibbles(codes) - 8) * scales[0]


class Q4_1(GgmlBlocks):
    """Between a block's smallest and largest value, and the smallest is held, too."""

    kind, code, halves = "q4_1", (BLOCK // 2, torch.uint8), 2

    def quantize_blocks(self, x: Tensor) -> Parts:
        low, high = x.aminmax(dim=-1, keepdim=True)
        step = (high - low) / 15
        return _nibbles(x - low, _inverse(step), 0.5), step, low

    def dequantize_blocks(self, codes: Tensor, *scales: Tensor) -> Tensor:
        return _of_nibbles(codes) * scales[0] + scales[1]


class Q8_0(GgmlBlocks):
    """The largest magnitude is 127 steps; halves are rounded away from zero."""

    kind, code, halves = "q8_0", (BLOCK, torch.int8), 1

    def quantize_blocks(self, x: Tensor) -> Parts:
        step = x.abs().amax(dim=-1, keepdim=True) / 127
        steps = x * _inverse(step)
        whole = steps.trunc()
        away = ((steps - whole).abs() >= 0.5) * steps.sign()
        return (whole + away).clamp(-127, 127).to(torch.int8), step

    def dequantize_blocks(self, codes: Tensor, *scales: Tensor) -> Tensor:
        return codes.float() * scales[0]


def _inverse(step: Tensor) -> Tensor:
    """1/d, and 0 for a block without one: its codes are then those of 0."""
    return torch.where(step == 0, 0, 1 / step)


def _nibbles(x: Tensor, inverse: Tensor, offset: float) -> Tensor:
    """trunc(x/d + offset) in 4 bits: byte j holds the codes j and j + 16 of its block."""
    codes = (x * inverse + offset).clamp(0, 15).to(torch.uint8)
    low, high = codes.chunk(2, dim=-1)
    return low | high << 4


def _of_nibbles(held: Tensor) -> Tensor:
    return torch.cat((held & 15, held >> 4), dim=-1).float()
