"""What a codec is: vectors to bytes and back, in a basis of its own choice."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.packing import LookUp
from reference_model.workspace import Workspace

VALUES_AT_ONCE = 2**19

Parts = tuple[Tensor, ...]  # what is held: (…, T/block, width) each, as `layout` says


class Codec(ABC):
    """Vectors (…, T, D) of one attention head's keys or values ↔ ``parts``, the bytes held.

    `encode` and `decode` are the whole way. Attention needs only half of it: queries that are
    turned by `rotate` can be multiplied with what `dequantize` returns, and the weighted sum of
    values is turned back once by `unrotate`, so that no key is ever turned back.
    """

    name: str
    width: int  # D
    block: int = 1  # consecutive tokens that are encoded together
    # (numbers, dtype) of each part, per block of tokens
    layout: tuple[tuple[int, torch.dtype], ...]

    @abstractmethod
    def quantize(self, x: Tensor) -> Parts:
        """x (…, T, D) in the codec's basis, T a multiple of ``block`` → parts."""

    @abstractmethod
    def dequantize(self, parts: Parts) -> Tensor:
        """Parts → x̂ (…, T, D) float32 in the codec's basis."""

    def levels(self, parts: Parts, workspace: Workspace | None = None) -> Tensor:
        """(…, T, D) float32 which `scales` are still to be multiplied with; in the workspace."""
        return self.dequantize(parts)

    def scales(self, parts: Parts) -> Tensor | None:
        """(…, T, 1) where each vector has one scale.

        Attention multiplies scores and weights by it, which are D times fewer.
        """
        return None

    def rotate(self, x: Tensor) -> Tensor:
        """x (…, D) → the codec's basis, float32."""
        return x.float()

    def unrotate(self, x: Tensor) -> Tensor:
        """The codec's basis (…, D) → where `rotate` came from, float32."""
        return x

    @property
    def constants(self) -> tuple[Tensor, ...]:
        """Tensors that are held once, whatever is encoded: rotations and tables."""
        return ()

    def encode(self, x: Tensor, into: Parts | None = None) -> Parts:
        """x (…, T, D), T a multiple of ``block`` → parts, which may be there already."""
        if x.shape[-2] % self.block:
            raise UserError(
                f"{self.name} encodes {self.block} tokens together, received {x.shape[-2]}; "
                "give a multiple"
            )
        size, blocks = self._at_once(x), x.shape[-2] // self.block
        if x.numel() <= size * self.block * self.width:
            return written(self.quantize(self.rotate(x)), into)
        if into is None:
            shape = *x.shape[:-2], blocks
            into = tuple(
                torch.empty(*shape, count, dtype=dtype, device=x.device)
                for count, dtype in self.layout
            )
        # Of as many heads at once as have few tokens, or of one head a part of its tokens.
        heads, workspace = math.prod(x.shape[:-2]), Workspace(x.device)
        x = x.reshape(heads, blocks * self.block, self.width)
        parts = [part.view(heads, blocks, -1) for part in into]
        for head in range(0, heads, rows := max(1, size // blocks)):
            of_heads = x[head : head + rows].split(min(size, blocks) * self.block, dim=1)
            targets = zip(*(p[head : head + rows].split(size, dim=1) for p in parts), strict=True)
            for piece, target in zip(of_heads, targets, strict=True):
                written(self._encode(piece, workspace), target)
        return into

    def _encode(self, x: Tensor, workspace: Workspace) -> Parts:
        """One piece of several, which may share their memory."""
        return self.quantize(self.rotate(x))

    def decode(self, parts: Parts) -> Tensor:
        """Parts → x̂ (…, T, D) float32."""
        first = parts[0]
        blocks = [part.reshape(-1, 1, part.shape[-1]) for part in parts]
        decoded = torch.empty(
            len(blocks[0]), self.block, self.width, dtype=torch.float32, device=first.device
        )
        size = self._at_once(decoded)
        pieces = zip(*(part.split(size) for part in blocks), strict=True)
        for into, piece in zip(decoded.split(size), pieces, strict=True):
            into.copy_(self.unrotate(self.dequantize(piece)))
        return decoded.view(*first.shape[:-2], first.shape[-2] * self.block, self.width)

    def _at_once(self, x: Tensor) -> int:
        """Blocks of tokens in a piece: on a CPU what lies between the steps stays in its cache."""
        on_cpu, values = x.device.type == "cpu", self.block * self.width
        return max(1, VALUES_AT_ONCE // values if on_cpu else x.numel() // values)

    @property
    def bits_per_value(self) -> float:
        """All that is held for a vector, scales included; constants and windows are not."""
        nbytes = sum(count * dtype.itemsize for count, dtype in self.layout)
        return 8 * nbytes / (self.block * self.width)

    def to(self, device: torch.device | str) -> Self:
        """This codec, or a copy of it whose constants are on another device."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, Tensor | LookUp | Codec):
                setattr(moved, name, value.to(device))
        same = all(vars(moved)[name] is value for name, value in vars(self).items())
        return self if same else moved


class Rotated(Codec):
    """A codec whose basis is a rotation: y = x Rᵀ. None: the model's own basis."""

    rotation: Tensor | None  # (D, D)

    def rotate(self, x: Tensor) -> Tensor:
        return x.float() if self.rotation is None else x.float() @ self.rotation.T

    def unrotate(self, x: Tensor) -> Tensor:
        return x if self.rotation is None else x @ self.rotation


def written(parts: Parts, into: Parts | None) -> Parts:
    """What is encoded, where there is room for it."""
    if into is None:
        return parts
    for room, part in zip(into, parts, strict=True):
        room.copy_(part)
    return into


def nbytes_of(tensors: Iterable[Tensor]) -> int:
    """Bytes of these tensors, one that occurs twice counted once."""
    return sum({(t.data_ptr(), t.nbytes): t.nbytes for t in tensors}.values())
