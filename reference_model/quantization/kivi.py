"""KIVI (2402.02750): keys rounded per channel over tokens, values per token over channels.

Nothing is rotated: keys have channels that are large in all tokens, and each gets a step of its
own. Steps and offsets are float16, and no offset is rounded to a whole number of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.baselines import between_ends
from reference_model.quantization.codec import Codec, Parts
from reference_model.quantization.packing import check_bits, pack, plane_widths, unpack

GROUP = 32  # of its tables; its code has 128 where none is asked for


class KiviKeys(Codec):
    """Each channel over ``group`` consecutive tokens, which are encoded once they are complete.

    The numbers are those of `PerChannel`, which decodes faster and holds a table for it.
    """

    def __init__(self, width: int, bits: int, *, group: int = GROUP) -> None:
        check_bits(bits)
        self.name = f"KIVI keys, {bits} bits, groups of {group}"
        self.width, self.bits, self.block = width, bits, group
        planes = tuple((group * n, torch.uint8) for n in plane_widths(bits, width))
        self.layout = (*planes, (width, torch.float16), (width, torch.float16))

    def quantize(self, x: Tensor) -> Parts:
        groups = x.unflatten(-2, (-1, self.block))  # (…, T/G, G, D)
        codes, step, offset = between_ends(groups, self.bits, dim=-2)
        planes = (plane.flatten(-2) for plane in pack(codes, self.bits))
        return *planes, step[..., 0, :], offset[..., 0, :]

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, step, offset = parts
        tokens = tuple(plane.unflatten(-1, (self.block, -1)) for plane in planes)
        levels = unpack(tokens, self.bits, self.width).float()  # (…, T/G, G, D)
        return (levels * step.float()[..., None, :] + offset.float()[..., None, :]).flatten(-3, -2)


class KiviValues(Codec):
    """Each token over ``group`` consecutive channels."""

    def __init__(self, width: int, bits: int, *, group: int = GROUP) -> None:
        check_bits(bits)
        if width % group:
            raise UserError(
                f"groups of {group} channels do not fill a width of {width}; use a divisor of it"
            )
        self.name = f"KIVI values, {bits} bits, groups of {group}"
        self.width, self.bits, self.group = width, bits, group
        planes = tuple((n, torch.uint8) for n in plane_widths(bits, width))
        self.layout = (*planes, *((width // group, torch.float16) for _ in ("step", "offset")))

    def quantize(self, x: Tensor) -> Parts:
        groups = x.unflatten(-1, (-1, self.group))  # (…, T, D/G, G)
        codes, step, offset = between_ends(groups, self.bits, dim=-1)
        return *pack(codes.flatten(-2), self.bits), step[..., 0], offset[..., 0]

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, step, offset = parts
        levels = unpack(tuple(planes), self.bits, self.width).float()
        groups = levels.unflatten(-1, (-1, self.group))
        return (groups * step.float()[..., None] + offset.float()[..., None]).flatten(-2)
