"""OSCAR (2605.17757), 2 bits: a rotation that a text decides, outliers cut, a step and a zero.

The rotation is from the eigenvectors of what keys and values are multiplied with, so that errors
lie where they are read least; Hadamard's matrix then spreads each direction over all channels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.codec import Parts, Rotated
from reference_model.quantization.packing import pack, unpack
from reference_model.quantization.rotation import random_signs, sylvester

BITS, CODES_OF_A_BYTE = 2, 4
GROUP = 128  # channels with one step; the whole of a narrower head
KEY_CLIP, VALUE_CLIP = 0.96, 0.92  # shares of a vector's magnitudes that are not cut


class Oscar(Rotated):
    """Vectors turned by ``rotation`` (D, D), y = x R, as `oscar_rotation` makes it.

    What is above the magnitude at the share ``clip`` is cut to it. ``numbers``: what steps and
    zeros are held in; its serving command has float32, its published size is that of bfloat16.
    """

    def __init__(
        self,
        width: int,
        rotation: Tensor,
        clip: float = KEY_CLIP,
        *,
        numbers: torch.dtype = torch.float32,
    ) -> None:
        self.group = min(GROUP, width)
        if width % self.group or width % CODES_OF_A_BYTE:
            raise UserError(
                f"groups of {self.group} channels, four codes a byte, do not fill a width of "
                f"{width}; use a multiple"
            )
        if rotation.shape != (width, width):
            raise UserError(
                f"a rotation of {width} channels is ({width}, {width}), received "
                f"{tuple(rotation.shape)}; calibrate it for this width"
            )
        if not 0 < clip < 1:
            raise UserError(f"clip={clip} is no share of the magnitudes; use one between 0 and 1")
        self.name = f"OSCAR, {BITS} bits, clip {clip}"
        self.width, self.clip = width, clip
        self.rotation: Tensor = rotation.detach().float().T.contiguous()
        of_groups = (width // self.group, numbers)
        self.layout = ((width // CODES_OF_A_BYTE, torch.uint8), of_groups, of_groups)

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return (self.rotation,)

    def quantize(self, x: Tensor) -> Parts:
        threshold = x.abs().kthvalue(int(self.clip * self.width) + 1, dim=-1, keepdim=True).values
        groups = x.clamp(-threshold, threshold).unflatten(-1, (-1, self.group))
        low, high = groups.aminmax(dim=-1, keepdim=True)
        numbers = self.layout[-1][1]
        # Rounded first, since that is what they are when they are read again.
        step = ((high - low) / (2**BITS - 1)).clamp(min=1e-8).to(numbers)
        zero = (-low / step.float()).to(numbers)  # no whole number
        codes = (groups / step.float() + zero.float() + 0.5).floor().clamp(0, 2**BITS - 1)
        # A byte holds the channels j, j + D/4, j + D/2 and j + 3D/4, from its low bits up.
        quarters = codes.to(torch.uint8).flatten(-2).unflatten(-1, (CODES_OF_A_BYTE, -1))
        return *pack(quarters.mT.flatten(-2), BITS), step[..., 0], zero[..., 0]

    def dequantize(self, parts: Parts) -> Tensor:
        held, step, zero = parts
        quarters = unpack((held,), BITS, self.width).unflatten(-1, (-1, CODES_OF_A_BYTE))
        groups = quarters.mT.flatten(-2).float().unflatten(-1, (-1, self.group))
        return ((groups - zero.float()[..., None]) * step.float()[..., None]).flatten(-2)


def oscar_rotation(moment: Tensor, *, seed: int | None = None) -> Tensor:
    """U H P of a second moment (D, D): its eigenvectors, Hadamard's matrix, a permutation.

    The permutation puts the channels, by falling eigenvalue, in bit-reversed order. It changes
    nothing where one group is the whole vector. ``seed`` draws signs before Hadamard's matrix:
    ours, as published there are none.
    """
    width = len(moment)
    vectors = torch.linalg.eigh(moment.double()).eigenvectors  # by rising eigenvalue
    spread = sylvester(width).to(vectors) / width**0.5
    if seed is not None:
        spread = random_signs(width, seed, 1)[0].to(vectors)[:, None] * spread
    turned, rotation = vectors @ spread, torch.empty_like(vectors)
    rotation[:, _bit_reversed(width)] = turned.flip(1)
    return rotation.float()


def _bit_reversed(width: int) -> list[int]:
    """0 … D − 1, each with its bits read backwards; D is a power of two."""
    bits = width.bit_length() - 1
    return [int(f"{i:0{bits}b}"[::-1], 2) if bits else 0 for i in range(width)]
