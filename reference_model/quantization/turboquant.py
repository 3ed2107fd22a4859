"""TurboQuant (2504.19874): rotate at random, then round each coordinate to one fixed codebook.

The rotation makes every vector look like a random one, so that a codebook computed once is nearly
the best for all of them: nothing is calibrated, and nothing but one scale is kept with a vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.kernels import packed_attention
from reference_model.quantization.codebook import lloyd_max, uniform
from reference_model.quantization.codec import Parts, Rotated, written
from reference_model.quantization.packing import LookUp, Planes, pack, plane_widths
from reference_model.quantization.rotation import haar, hadamard, sylvester
from reference_model.workspace import Workspace

# Controls: none has the codebook and not what it was made for; unsigned_hadamard is one fixed
# matrix, which sends what all coordinates share to the first one.
Rotation = Literal["haar", "hadamard", "unsigned_hadamard", "none"]
# With x the vector and ŷ the quantised unit vector x/‖x‖, what ŷ is multiplied by:
#   norm            ‖x‖            the paper's
#   norm_corrected  ‖x‖ / ‖ŷ‖      what is decoded has the length of x
#   least_squares   ⟨x, ŷ⟩ / ‖ŷ‖²  the least error
#   unbiased        ‖x‖² / ⟨x, ŷ⟩  ⟨x, x̂⟩ = ‖x‖² exactly; the slope 1 − D becomes 1
Scale = Literal["norm", "norm_corrected", "least_squares", "unbiased"]
# uniform: a control, equally spaced levels with the step that is best for the same law.
Levels = Literal["lloyd_max", "uniform"]
Projection = Literal["gaussian", "orthonormal"]

ROTATIONS: dict[str, Callable[[int, int], Tensor]] = {
    "haar": haar,
    "hadamard": hadamard,
    "unsigned_hadamard": lambda width, seed: sylvester(width) / math.sqrt(width),
    "none": lambda width, seed: torch.eye(width, dtype=torch.float64),
}


def check_choice(name: str, value: str, allowed: object) -> None:
    """Raise `UserError` for a value that is not among the arguments of a `Literal`."""
    if value not in get_args(allowed):
        raise UserError(
            f"{name}={value!r} is not a known choice; use one of {', '.join(get_args(allowed))}"
        )


def _check_size(bits: int) -> None:
    if not 1 <= bits <= 4:
        raise UserError(f"bits={bits!r} is not a size that TurboQuant packs; use 1, 2, 3 or 4")


class TurboQuant(Rotated):
    """The variant for the least squared error: ``bits`` a coordinate and a float16 scale a vector.

    ``seed`` draws the rotation; one codec serves a whole model. What is not finite, or has a scale
    beyond float16, decodes to what is not finite.
    """

    def __init__(
        self,
        width: int,
        bits: int = 3,
        *,
        scale: Scale = "norm",
        rotation: Rotation = "haar",
        levels: Levels = "lloyd_max",
        seed: int = 0,
    ) -> None:
        check_choice("scale", scale, Scale)
        check_choice("rotation", rotation, Rotation)
        check_choice("levels", levels, Levels)
        _check_size(bits)
        self.name = f"TurboQuant, {bits} bits"
        self.width, self.bits, self.scale = width, bits, scale
        # (D, D), y = x Rᵀ
        self.rotation: Tensor = ROTATIONS[rotation](width, seed).float().contiguous()
        codebook = (lloyd_max if levels == "lloyd_max" else uniform)(width, bits)
        half = len(codebook.levels) // 2
        # Codes are sign and magnitude: half as many comparisons as one for each edge.
        positive = torch.tensor(codebook.levels[half:], dtype=torch.float64)
        self.edges = codebook.edges[half:]  # between magnitudes
        self.look_up = LookUp(torch.cat((positive, -positive)), bits)
        planes = tuple((n, torch.uint8) for n in plane_widths(bits, width))
        self.layout = (*planes, (1, torch.float16))

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return self.rotation, self.look_up.table

    def encode(self, x: Tensor, into: Parts | None = None) -> Parts:
        if packed_attention.can_encode(self, x):
            return written(packed_attention.encode(self, x), into)
        return super().encode(x, into)

    def quantize(self, x: Tensor, workspace: Workspace | None = None) -> Parts:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (…, T, 1)
        planes = pack(self._codes(x, norm, workspace), self.bits)
        return *planes, self._scales(x, norm, planes).half()

    @torch.no_grad()  # what is written to is no step of a gradient
    def _codes(self, x: Tensor, norm: Tensor, workspace: Workspace | None) -> Tensor:
        """The nearest level of each coordinate over its vector's norm: (…, T, D) → uint8.

        What is less than another is told by the sign of their difference, moved through all bits:
        −1 then. PyTorch takes three times as long to write truth values.
        """
        signs, magnitudes, less = (
            None if workspace is None else workspace.empty(name, *x.shape)
            for name in ("signs", "magnitudes", "less")
        )
        signs = torch.add(x, 0.0, out=signs)  # of 0, never of −0
        codes = signs.view(torch.int32).bitwise_right_shift_(31).bitwise_and_(2 ** (self.bits - 1))
        if self.edges:
            magnitudes = torch.abs(x, out=magnitudes)
            for edge in self.edges:  # of the vector's own length: no coordinate is divided
                less = torch.sub(norm * edge, magnitudes, out=less)
                codes -= less.view(torch.int32).bitwise_right_shift_(31)
        return codes.to(torch.uint8)

    def _scales(self, x: Tensor, norm: Tensor, planes: Planes) -> Tensor:
        """(…, T, 1), one for each vector; 0 for one that is 0."""
        if self.scale == "norm":
            return norm
        levels = self.look_up(planes, self.width)  # ŷ
        length = torch.linalg.vector_norm(levels, dim=-1, keepdim=True)
        if self.scale == "norm_corrected":
            return norm / length
        product = torch.linalg.vecdot(x, levels)[..., None]
        if self.scale == "least_squares":
            return product / length**2
        return torch.where(norm == 0, 0, norm**2 / product)  # a NaN stays one

    def _encode(self, x: Tensor, workspace: Workspace) -> Parts:
        turned = workspace.empty("turned", *x.shape)
        torch.matmul(x.float(), self.rotation.T, out=turned)
        return self.quantize(turned, workspace)

    def levels(self, parts: Parts, workspace: Workspace | None = None) -> Tensor:
        return self.look_up(tuple(parts[:-1]), self.width, workspace)

    def scales(self, parts: Parts) -> Tensor | None:
        return parts[-1]

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, scale = parts
        return self.look_up(tuple(planes), self.width).mul_(scale)


class TurboQuantProd(Rotated):
    """The variant for inner products: one bit less a coordinate, and QJL on what is left.

    QJL (2406.03482) keeps the signs of S r, r the residual and S random, and ‖r‖. What it adds,
    c ‖r‖ Sᵀ sign(S r), is r on average over S. Of a Gaussian S c is √(π/2)/D; of an orthonormal
    one, whose error is smaller, √π Γ((D+1)/2) / (D Γ(D/2)). Two float16 scales a vector.
    """

    def __init__(
        self,
        width: int,
        bits: int = 3,
        *,
        projection: Projection = "gaussian",
        rotation: Rotation = "haar",
        seed: int = 0,
    ) -> None:
        check_choice("projection", projection, Projection)
        check_choice("rotation", rotation, Rotation)
        _check_size(bits)
        self.name = f"TurboQuant prod, {bits} bits, {projection} S"
        self.width, self.bits = width, bits
        # With one bit in all there is none for a codebook: the residual is the vector.
        self.base = TurboQuant(width, bits - 1, rotation=rotation, seed=seed) if bits > 1 else None
        self.rotation = (
            self.base.rotation if self.base else ROTATIONS[rotation](width, seed).float()
        )
        if projection == "gaussian":
            generator = torch.Generator().manual_seed(seed + 1_000_003)  # not the rotation's
            self.projection = torch.randn(width, width, generator=generator)
            self.constant = math.sqrt(math.pi / 2) / width
        else:
            self.projection = haar(width, seed + 1_000_003).float()
            self.constant = math.exp(math.lgamma((width + 1) / 2) - math.lgamma(width / 2))
            self.constant *= math.sqrt(math.pi) / width
        self.signs = LookUp(torch.tensor([1.0, -1.0]), 1)
        signs = tuple((n, torch.uint8) for n in plane_widths(1, width))
        self.layout = (*(self.base.layout if self.base else ()), *signs, (1, torch.float16))

    def rotate(self, x: Tensor) -> Tensor:
        return self.base.rotate(x) if self.base else super().rotate(x)

    def unrotate(self, x: Tensor) -> Tensor:
        return self.base.unrotate(x) if self.base else super().unrotate(x)

    @property
    def constants(self) -> tuple[Tensor, ...]:
        base = self.base.constants if self.base else ()
        rotation = () if self.rotation is None else (self.rotation,)
        return *base, *rotation, self.projection, self.signs.table

    def quantize(self, x: Tensor) -> Parts:
        parts = self.base.quantize(x) if self.base else ()
        residual = x - self.base.dequantize(parts) if self.base else x
        length = torch.linalg.vector_norm(residual, dim=-1, keepdim=True)
        signs = pack((residual @ self.projection.T < 0).view(torch.uint8), 1)
        return *parts, *signs, length.half()

    def dequantize(self, parts: Parts) -> Tensor:
        *base, signs, length = parts
        residual = self.signs((signs,), self.width) @ self.projection
        residual *= self.constant * length.float()
        return self.base.dequantize(tuple(base)) + residual if self.base else residual
