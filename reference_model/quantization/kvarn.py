"""KVarN (2606.03458): a tile of tokens is scaled in rows and columns, then rounded row by row.

Sinkhorn's iteration makes the deviations of a tile's rows and columns even, so that one channel or
one token that is larger than the others widens no steps but its own.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.codec import Parts
from reference_model.quantization.hadamard import HadamardRotated
from reference_model.quantization.packing import check_bits, pack, plane_widths, unpack

TILE = 128  # tokens
ITERATIONS = 8  # of the version in vLLM; the authors' own takes 16
FLOOR, CEILING = -0.3, 10.0  # of a factor's logarithm
LEAST, MOST = 1e-3, 1e3  # of a deviation, while factors are sought


class KVarN(HadamardRotated):
    """A tile as a matrix (R, C) → codes, two float16 numbers a row and one a column.

    The floor of the factors is absolute as published: where deviations are below 0.74 nothing is
    made even. ``relative_floor`` counts it from the tile's smallest deviation instead, as SINQ
    does, from which the number comes. ``seed`` draws signs for the rotation: ours, too.
    """

    role: str

    def __init__(
        self,
        width: int,
        bits: int,
        *,
        tile: int = TILE,
        iterations: int = ITERATIONS,
        relative_floor: bool = False,
        seed: int | None = None,
    ) -> None:
        check_bits(bits)
        if tile < 2:
            raise UserError(f"tile={tile} has no deviations; use 2 tokens or more")
        variants = [", relative floor"] * relative_floor + [", signs"] * (seed is not None)
        self.name = f"KVarN {self.role}, {bits} bits{''.join(variants)}"
        self.width, self.bits, self.block = width, bits, tile
        self.iterations, self.relative_floor = iterations, relative_floor
        self.set_basis(width, width, seed)
        rows, columns = self.matrix(torch.empty(tile, width, device="meta")).shape
        planes = tuple((tile * n, torch.uint8) for n in plane_widths(bits, width))
        of_rows = (rows, torch.float16)
        self.layout = (*planes, of_rows, of_rows, (columns, torch.float16))

    @abstractmethod
    def matrix(self, tiles: Tensor) -> Tensor:
        """Tiles (…, tile, D) as (…, R, C), and back."""

    def quantize(self, x: Tensor) -> Parts:
        m = self.matrix(x.unflatten(-2, (-1, self.block)))
        rows, columns = even_factors(m, self.iterations, self.relative_floor)
        even = m / columns / rows
        low, high = even.aminmax(dim=-1, keepdim=True)
        step = ((high - low) / (2**self.bits - 1)).clamp(min=1e-10)
        codes = ((even - low) / step).round().clamp(0, 2**self.bits - 1).to(torch.uint8)
        planes = (plane.flatten(-2) for plane in pack(self.matrix(codes), self.bits))
        numbers = ((rows * step)[..., 0], (rows * low)[..., 0], columns[..., 0, :])
        return *planes, *(each.half() for each in numbers)

    def dequantize(self, parts: Parts) -> Tensor:
        *planes, step, offset, column = parts
        tokens = tuple(plane.unflatten(-1, (self.block, -1)) for plane in planes)
        codes = self.matrix(unpack(tokens, self.bits, self.width).float())
        m = (codes * step.float()[..., None] + offset.float()[..., None]) * column[..., None, :]
        return self.matrix(m).flatten(-3, -2)


class KVarNKeys(KVarN):
    """Rows are channels, columns are tokens."""

    role = "keys"

    def matrix(self, tiles: Tensor) -> Tensor:
        return tiles.mT


class KVarNValues(KVarN):
    """Rows are tokens, columns are channels."""

    role = "values"

    def matrix(self, tiles: Tensor) -> Tensor:
        return tiles


def even_factors(m: Tensor, iterations: int, relative_floor: bool) -> tuple[Tensor, Tensor]:
    """Factors of rows (…, R, 1) and columns (…, 1, C): m over both has deviations that are alike.

    The best of all iterations; 1 where none of them is better. What all rows share is left out:
    each row has a step of its own.
    """
    if relative_floor:
        m = m / _smallest_deviation(m)
    rows, columns = torch.ones_like(m[..., :1]), torch.ones_like(m[..., :1, :])
    log_rows, log_columns, best = rows.log(), columns.log(), imbalance(m)
    for _ in range(iterations):
        even = m / log_columns.exp() / log_rows.exp()
        log_columns = _nearer(log_columns, _deviation(even, -2))
        even = m / log_columns.exp() / log_rows.exp()
        log_rows = _nearer(log_rows, _deviation(even, -1))
        even = m / log_columns.exp() / log_rows.exp()
        found = imbalance(even)
        better = found <= best
        best = torch.where(better, found, best)
        rows = torch.where(better, log_rows.exp(), rows)
        columns = torch.where(better, log_columns.exp(), columns)
    return rows, columns


def imbalance(m: Tensor) -> Tensor:
    """How many times the largest deviation is the smallest, of columns and of rows: (…, 1, 1)."""
    parts = [_deviation(m, dim).clamp(min=1e-8) for dim in (-2, -1)]
    return sum(
        (part.amax((-2, -1), keepdim=True) / part.amin((-2, -1), keepdim=True) for part in parts),
        start=torch.zeros_like(m[..., :1, :1]),
    )


def _deviation(m: Tensor, dim: int) -> Tensor:
    """What ``m.std(dim, keepdim=True)`` returns, in a third of its time on a CPU.

    Squares are added in float64: where deviations are alike, the last digit decides which iteration
    is the best.
    """
    squares = (m - m.mean(dim, keepdim=True)).square_().sum(dim, keepdim=True, dtype=torch.float64)
    return (squares / (m.shape[dim] - 1)).sqrt().float()


def _nearer(logs: Tensor, deviation: Tensor) -> Tensor:
    """Factors that bring these deviations nearer to 1, as far as they may go."""
    return (logs + deviation.clamp(LEAST, MOST).log()).clamp(FLOOR, CEILING)


def _smallest_deviation(m: Tensor) -> Tensor:
    """Of a row or column, unless it lies further below the largest than a factor reaches.

    (…, 1, 1). What is constant has none, or one of rounding, and says nothing of the tile's size.
    """
    found = torch.cat([_deviation(m, dim).flatten(-2) for dim in (-2, -1)], dim=-1)
    reached = found > found.amax(-1, keepdim=True) * math.exp(-CEILING)
    smallest = torch.where(reached, found, torch.inf).amin(-1)[..., None, None]
    return torch.where(smallest.isfinite(), smallest, 1.0)
