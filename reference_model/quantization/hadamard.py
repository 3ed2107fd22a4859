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


def walsh_hadamard(x: Tensor, size: int) -> Tensor:
    """Blocks of ``size`` of x (…, D) times Sylvester's matrix over √size: its own inverse."""
    y, half = x.unflatten(-1, (-1, size)), 1
    while half < size:
        low, high = y.unflatten(-1, (-1, 2, half)).unbind(-2)
        y, half = torch.stack((low + high, low - high), dim=-2).flatten(-3), 2 * half
    return (y / math.sqrt(size)).flatten(-2)


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
