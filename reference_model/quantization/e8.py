"""The E8 lattice in a box: eight rotated coordinates at once, in exactly b bits each.

Spheres around E8's points fill space better than cubes do, and the box has a word of 8b bits for
each of its points and none to spare. The points are moved by a quarter, so that for each one its
negative is there, too.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.baselines import nonzero
from reference_model.quantization.codec import Parts
from reference_model.quantization.hadamard import HadamardRotated
from reference_model.quantization.rotation import HADAMARD_ROUNDS, haar
from reference_model.quantization.turboquant import check_choice

DIMENSIONS = 8
Rotation = Literal["hadamard", "haar"]
# With x the vector and p its point: ⟨x, p⟩/‖p‖², the least error, or ‖x‖²/⟨x, p⟩, with which
# ⟨x, x̂⟩ = ‖x‖². The same step is best for both.
Scale = Literal["least_squares", "unbiased"]
# Steps that are tried, in root mean squares of a vector: for each number of bits the range in which
# the best one lies, and the one that is best for all normal vectors together.
STEPS: dict[int, tuple[float, float]] = {2: (0.7, 1.3), 3: (0.4, 0.8), 4: (0.2, 0.5)}
TRIED = 13
ONE_STEP: dict[int, float] = {2: 0.98, 3: 0.575, 4: 0.325}


class E8Box(HadamardRotated):
    """Of a vector: words of 8 coordinates, and one float16 step that is fitted to them.

    ``scale``: what it is fitted by. ``search``: encode at `TRIED` steps and keep the best;
    otherwise at one, in a sixth of the time. ``seed`` draws the rotation.
    """

    def __init__(
        self,
        width: int,
        bits: int,
        *,
        search: bool = True,
        scale: Scale = "least_squares",
        rotation: Rotation = "hadamard",
        seed: int = 0,
    ) -> None:
        if bits not in STEPS:
            raise UserError(f"bits={bits!r} has no box; use one of {', '.join(map(str, STEPS))}")
        if width % DIMENSIONS:
            raise UserError(f"{width} channels are no multiple of {DIMENSIONS}; use one that is")
        check_choice("scale", scale, Scale)
        check_choice("rotation", rotation, Rotation)
        self.name = f"E8, {bits} bits{'' if search else ', one step'}"
        self.width, self.bits, self.scale = width, bits, scale
        self.matrix = haar(width, seed).float() if rotation == "haar" else None
        if self.matrix is None:
            self.set_basis(width, width, seed, HADAMARD_ROUNDS)
        low, high = STEPS[bits]
        tried = [low + (high - low) * i / (TRIED - 1) for i in range(TRIED)]
        self.steps = tried if search else [ONE_STEP[bits]]
        self.layout = ((width // DIMENSIONS * bits, torch.uint8), (1, torch.float16))

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return super().constants if self.matrix is None else (self.matrix,)

    def rotate(self, x: Tensor) -> Tensor:
        return super().rotate(x) if self.matrix is None else x.float() @ self.matrix.T

    def unrotate(self, x: Tensor) -> Tensor:
        return super().unrotate(x) if self.matrix is None else x @ self.matrix

    def quantize(self, x: Tensor) -> Parts:
        size = nonzero(torch.linalg.vector_norm(x, dim=-1, keepdim=True) / math.sqrt(self.width))
        y = (x / size).unflatten(-1, (-1, DIMENSIONS))
        step = self._best_step(y) if len(self.steps) > 1 else self.steps[0]
        n, coset = nearest(y / step, self.bits)
        product, length = _products(y, points_of(n, coset))
        if self.scale == "least_squares":
            fitted = product / length
        else:
            squared = y.square().sum((-1, -2), keepdim=True)
            fitted = torch.where(squared == 0, 0, squared / product)  # a NaN stays one
        scale = (size[..., None] * fitted)[..., 0]
        return bytes_of(words_of(n, coset, self.bits), self.bits), scale.half()

    def _best_step(self, y: Tensor) -> Tensor:
        """Of each vector of y (…, D/8, 8): (…, 1, 1)."""
        best = chosen = torch.full_like(y[..., :1, :1], -1)
        for step in self.steps:
            product, length = _products(y, points_of(*nearest(y / step, self.bits)))
            # ‖y − s p‖² is least at s = ⟨y, p⟩/‖p‖², and then ‖y‖² less what is gained.
            gained = product**2 / length
            better = ~(gained <= best)  # what is no number takes the place, and stays
            chosen = torch.where(better, step, chosen)
            best = torch.where(better, gained, best)
        return chosen

    def dequantize(self, parts: Parts) -> Tensor:
        held, scale = parts
        n, coset = of_words(held, self.bits)
        return points_of(n, coset).flatten(-2) * scale.float()


def nearest(y: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """The point of the box that is nearest to y (…, 8), in units of the step.

    n (…, 8): whole numbers from −2^(b−1) to 2^(b−1) − 1 whose sum is even, float32; and which of
    the two cosets, n + ¼ or n + ¾, they are of: (…, 1), 0 or 1.
    """
    low, high = -(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1
    (even, distance), (shifted, other) = (_of_coset(y - by, low, high) for by in (0.25, 0.75))
    coset = other < distance
    return torch.where(coset, shifted, even), coset.float()


def _of_coset(y: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """The nearest whole numbers in the box with an even sum, and their squared distance (…, 1)."""
    inside = y.clamp(low, high)
    outside = y - inside
    n = inside.round()
    rest = inside.sub_(n)
    distance = (rest + outside).square_().sum(-1, keepdim=True)
    # A step of one costs 1 − 2|y − n| where it leads towards y, and 1 + 2|y − n| where the box ends
    # before y. Where the sum is odd, the cheapest is taken.
    towards = outside.abs_().neg_().add_(rest.abs())
    furthest, at = towards.max(dim=-1, keepdim=True)
    odd = n.sum(-1, keepdim=True).remainder_(2)
    downwards = (rest.gather(-1, at) < 0) | (n.gather(-1, at) == high)
    n.scatter_add_(-1, at, torch.where(downwards, -odd, odd))
    return n, distance.addcmul_(odd, 1 - 2 * furthest)


def _products(y: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """⟨y, p⟩ and ‖p‖² of vectors (…, D/8, 8): (…, 1, 1) each."""
    y, points = y.flatten(-2), points.flatten(-2)
    product, length = torch.linalg.vecdot(y, points), torch.linalg.vecdot(points, points)
    return product[..., None, None], length[..., None, None]


def points_of(n: Tensor, coset: Tensor) -> Tensor:
    return n + (coset / 2 + 0.25)


def words_of(n: Tensor, coset: Tensor, bits: int) -> Tensor:
    """(…, D/8) int32: the coset, seven n of b bits, and the eighth without its lowest bit."""
    codes = (n + 2 ** (bits - 1)).int()
    codes[..., -1] >>= 1  # the even sum gives it back
    return (codes << _shifts(bits, n.device)).sum(-1, dtype=torch.int32) + coset[..., 0].int()


def of_words(held: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Bytes (…, b D/8) → n (…, D/8, 8) and cosets (…, D/8, 1), float32."""
    places = 8 * torch.arange(bits, device=held.device, dtype=torch.int32)
    in_bytes = held.unflatten(-1, (-1, bits)).int() << places
    words = in_bytes.sum(-1, keepdim=True, dtype=torch.int32)
    codes = (words >> _shifts(bits, held.device)) & (2**bits - 1)
    last, rest = codes[..., -1:], codes[..., :-1].sum(-1, keepdim=True, dtype=torch.int32)
    last.bitwise_left_shift_(1).bitwise_and_(2**bits - 1).bitwise_or_(rest & 1)
    return codes.float() - 2 ** (bits - 1), (words & 1).float()


def bytes_of(words: Tensor, bits: int) -> Tensor:
    """(…, D/8) → (…, b D/8) uint8, the lowest byte of a word first."""
    places = 8 * torch.arange(bits, device=words.device, dtype=torch.int32)
    return ((words[..., None] >> places) & 255).to(torch.uint8).flatten(-2)


def _shifts(bits: int, device: torch.device) -> Tensor:
    return 1 + bits * torch.arange(DIMENSIONS, device=device, dtype=torch.int32)
