"""What TurboQuant has to beat at equal bits in all: rounding with a scale for each group of values.

No codebook and, but for the rotated blocks, no rotation: the levels are equally spaced between
what is smallest and largest in a group, so that an outlier widens the steps of all its neighbours.
"""

from __future__ import annotations

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.codec import Codec, Parts, Rotated
from reference_model.quantization.packing import LookUp, check_bits, pack, plane_widths
from reference_model.quantization.rotation import haar
from reference_model.workspace import Workspace

BLOCK = 32  # values of a block, as in GGUF files
GROUP = 32  # tokens of a group, as in KIVI
LARGEST_E4M3 = 448.0


class Plain(Codec):
    """No compression: vectors as they are, in one dtype. For keys or values that stay exact."""

    def __init__(self, width: int, dtype: torch.dtype = torch.float16) -> None:
        self.name = f"uncompressed {str(dtype).removeprefix('torch.')}"
        self.width, self.layout = width, ((width, dtype),)

    def quantize(self, x: Tensor) -> Parts:
        return (x.to(self.layout[0][1]),)

    def dequantize(self, parts: Parts) -> Tensor:
        return parts[0].float()


class PerToken(Codec):
    """Round to nearest between a vector's smallest and largest value; a float16 step and offset."""

    def __init__(self, width: int, bits: int) -> None:
        check_bits(bits)
        self.name = f"rounding per token, {bits} bits"
        self.width, self.bits = width, bits
        self.look_up = LookUp(torch.arange(2**bits), bits)
        planes = tuple((n, torch.uint8) for n in plane_widths(bits, width))
        self.layout = (*planes, (1, torch.float16), (1, torch.float16))

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return (self.look_up.table,)

    def quantize(self, x: Tensor) -> Parts:
        codes, step, offset = between_ends(x, self.bits, dim=-1)
        return *pack(codes, self.bits), step, offset

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, step, offset = parts
        return self.look_up(tuple(planes), self.width) * step.float() + offset.float()


class PerChannel(Codec):
    """Each channel over ``group`` tokens at once, as KIVI (2402.02750) stores keys.

    A channel that is large in all tokens then has a wide step of its own. A group must be complete
    to be encoded: the tokens after the last group stay as they are.
    """

    def __init__(self, width: int, bits: int, *, group: int = GROUP) -> None:
        check_bits(bits)
        self.block = group
        self.name = f"rounding per channel, {bits} bits"
        self.width, self.bits = width, bits
        self.look_up = LookUp(torch.arange(2**bits), bits)
        planes = tuple((group * n, torch.uint8) for n in plane_widths(bits, width))
        self.layout = (*planes, (width, torch.float16), (width, torch.float16))

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return (self.look_up.table,)

    def quantize(self, x: Tensor) -> Parts:
        groups = x.unflatten(-2, (-1, self.block))  # (…, T/G, G, D)
        codes, step, offset = between_ends(groups, self.bits, dim=-2)
        planes = (plane.flatten(-2) for plane in pack(codes, self.bits))
        return *planes, step[..., 0, :], offset[..., 0, :]

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, step, offset = parts
        tokens = tuple(plane.unflatten(-1, (self.block, -1)) for plane in planes)
        levels = self.look_up(tokens, self.width)  # (…, T/G, G, D)
        return (levels * step.float()[..., None, :] + offset.float()[..., None, :]).flatten(-3, -2)


class AbsmaxBlocks(Rotated):
    """Blocks of ``BLOCK`` values of a vector, a float16 step each: llama.cpp's q4_0 at 4 bits.

    The value of largest magnitude becomes the lowest code, −2^(b−1), whatever its sign is. With a
    ``seed`` the vectors are rotated first: what is left to the codebook then shows.
    """

    def __init__(self, width: int, bits: int, *, seed: int | None = None) -> None:
        check_bits(bits)
        if width % BLOCK:
            raise UserError(f"blocks of {BLOCK} do not fill a width of {width}; use PerToken")
        kind = "absmax blocks" if seed is None else "rotated absmax blocks"
        self.name = f"{kind}, {bits} bits"
        self.width, self.bits = width, bits
        self.rotation = None if seed is None else haar(width, seed).float()
        self.look_up = LookUp(torch.arange(2**bits) - 2 ** (bits - 1), bits)
        planes = tuple((n, torch.uint8) for n in plane_widths(bits, width))
        self.layout = (*planes, (width // BLOCK, torch.float16))

    @property
    def constants(self) -> tuple[Tensor, ...]:
        rotation = () if self.rotation is None else (self.rotation,)
        return *rotation, self.look_up.table

    def quantize(self, x: Tensor) -> Parts:
        blocks = x.unflatten(-1, (-1, BLOCK))  # (…, D/32, 32)
        largest = blocks.gather(-1, blocks.abs().argmax(dim=-1, keepdim=True))
        step = (largest / -(2 ** (self.bits - 1))).half()  # as it is read again
        codes = (blocks / nonzero(step.float())).round() + 2 ** (self.bits - 1)
        codes = codes.clamp(0, 2**self.bits - 1).to(torch.uint8).flatten(-2)
        return *pack(codes, self.bits), step[..., 0]

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, step = parts
        levels = self.look_up(tuple(planes), self.width).unflatten(-1, (-1, BLOCK))
        return (levels * step.float()[..., None]).flatten(-2)


class Int8(Codec):
    """A vector's largest magnitude is 127 steps; a float16 step."""

    name = "int8 per token"

    def __init__(self, width: int) -> None:
        self.width = width
        self.layout = ((width, torch.int8), (1, torch.float16))

    def quantize(self, x: Tensor) -> Parts:
        step = (x.abs().amax(dim=-1, keepdim=True) / 127).half()
        codes = (x / nonzero(step.float())).round().clamp(-127, 127)
        return codes.to(torch.int8), step

    def levels(self, parts: Parts, workspace: Workspace | None = None) -> Tensor:
        workspace = workspace or Workspace(parts[0].device, reused=False)
        return workspace.tokens("numbers", *parts[0].shape).copy_(parts[0])

    def scales(self, parts: Parts) -> Tensor | None:
        return parts[1]

    def dequantize(self, parts: Parts) -> Tensor:
        codes, step = parts
        return codes.float() * step.float()


class Float8(Codec):
    """float8 e4m3 without a scale: 3 bits of mantissa. What is above 448 becomes 448."""

    name = "float8 e4m3"

    def __init__(self, width: int) -> None:
        self.width = width
        self.layout = ((width, torch.float8_e4m3fn),)

    def quantize(self, x: Tensor) -> Parts:
        return (x.clamp(-LARGEST_E4M3, LARGEST_E4M3).to(torch.float8_e4m3fn),)

    def dequantize(self, parts: Parts) -> Tensor:
        return parts[0].float()


def between_ends(x: Tensor, bits: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes like x, and the step and offset (float16) of each group that runs along ``dim``."""
    low, high = x.amin(dim=dim, keepdim=True), x.amax(dim=dim, keepdim=True)
    # Rounded first, since that is what they are when they are read again.
    step, offset = ((high - low) / (2**bits - 1)).half(), low.half()
    codes = ((x - offset.float()) / nonzero(step.float())).round().clamp(0, 2**bits - 1)
    return codes.to(torch.uint8), step, offset


def nonzero(step: Tensor) -> Tensor:
    """A step of 0 has one level, whatever it is divided by."""
    return torch.where(step == 0, 1.0, step)
