"""Hadamard's matrix as a codec's basis: by sums and differences, so that no matrix is held.

A sum has the same two terms however many vectors come at once: codes do not depend on the pieces.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.codec import Codec
from reference_model.quantization.rotation import random_signs

VALUES_AT_ONCE = 2**16  # what lies between the steps stays in a CPU's cache


def walsh_hadamard(x: Tensor, size: int) -> Tensor:
    """Blocks of ``size`` of x (…, D) times Sylvester's matrix over √size: its own inverse."""
    blocks = x.reshape(-1, size)
    pieces = blocks.split(max(1, VALUES_AT_ONCE // size))
    return torch.cat([_sums(piece.mT.contiguous()).mT for piece in pieces]).view(x.shape)


def _sums(y: Tensor) -> Tensor:
    """Of columns y (size, N). Side by side they are added up far faster than one by one.

    A step adds and subtracts neighbours. It leaves sums in the first half and differences in the
    last, so that the next one finds its neighbours side by side as well.
    """
    size = len(y)
    for _ in range(size.bit_length() - 1):
        even, odd = y[0::2], y[1::2]
        y = torch.cat((even + odd, even - odd))
    return y / math.sqrt(size)


class HadamardRotated(Codec):
    """A codec whose basis is Hadamard's, over blocks of ``spread`` channels; 1: the model's own.

    Without ``signs`` one fixed matrix, as published formats have it. It sends what all channels
    share to one coordinate, and a single coordinate to all. With signs (rounds, D) each round
    turns at random.
    """

    spread: int
    signs: Tensor | None

    def set_basis(self, width: int, spread: int, seed: int | None, rounds: int = 1) -> None:
        """``seed``: draws the signs; None: there are none."""
        if spread < 1 or spread & (spread - 1) or width % spread:
            raise UserError(
                f"Hadamard's matrix over {spread} of {width} channels does not exist; use a "
                "power of two that divides the width"
            )
        self.spread = spread
        self.signs = None if seed is None else random_signs(width, seed, rounds)

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return () if self.signs is None else (self.signs,)

    def rotate(self, x: Tensor) -> Tensor:
        x = x.float()
        for signs in (None,) if self.signs is None else self.signs:
            x = walsh_hadamard(x if signs is None else x * signs, self.spread)
        return x

    def unrotate(self, x: Tensor) -> Tensor:
        for signs in (None,) if self.signs is None else self.signs.flip(0):
            x = walsh_hadamard(x, self.spread)
            x = x if signs is None else x * signs
        return x
