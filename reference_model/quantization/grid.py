"""Grids of equally spaced numbers for weights: which codes, and how much a step is worth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from reference_model.errors import UserError

Granularity = Literal["per tensor", "per channel", "per group"]
Zero = Literal["symmetric", "asymmetric"]

GROUP = 64  # inputs that share a scale, per group


@dataclass(frozen=True)
class Grid:
    """Which numbers a weight may take: ``bits`` a code, a step for each tensor, channel or group.

    A channel is an index of the first axis, the output of a linear; a group is ``GROUP`` inputs of
    one. Symmetric: steps · (−L … L) with L = 2^(bits−1) − 1, so that −x is on the grid where x is.
    Asymmetric: 2^bits steps from the smallest number to the largest, 0 among them.
    """

    bits: int = 8
    granularity: Granularity = "per channel"
    zero: Zero = "symmetric"

    def __post_init__(self) -> None:
        if self.granularity not in get_args(Granularity):
            raise UserError(
                f"granularity={self.granularity!r} is not known; "
                f"use {' or '.join(get_args(Granularity))}"
            )
        if self.zero not in get_args(Zero):
            raise UserError(f"zero={self.zero!r} is not known; use {' or '.join(get_args(Zero))}")
        if not 2 <= self.bits <= 8:
            raise UserError(f"bits={self.bits!r} has no grid here; use 2 to 8")

    @property
    def name(self) -> str:
        symmetric = "" if self.zero == "symmetric" else ", asymmetric"
        return f"INT{self.bits} {self.granularity}{symmetric}"


@dataclass(frozen=True)
class Codes:
    """A weight on its grid: value = (code − zero) · step.

    ``codes`` int8, in the shape of the weight; ``steps`` and ``zeros``, one for each group, (rows,
    groups) float64 and int64, with one row per tensor or one per channel.
    """

    codes: Tensor
    steps: Tensor
    zeros: Tensor

    @property
    def values(self) -> Tensor:
        """What the codes stand for, float64."""
        rows, groups = self.steps.shape
        parts = self.codes.double().reshape(rows, groups, -1)
        return ((parts - self.zeros[..., None]) * self.steps[..., None]).view_as(self.codes)


def to_grid(values: Tensor, grid: Grid) -> Codes:
    """The nearest codes. Ties go to the even one. `UserError` on values that are not finite."""
    if not values.isfinite().all():
        raise UserError("weights that are not finite have no INT8 grid; check the checkpoint")
    rows = 1 if grid.granularity == "per tensor" else values.shape[0]
    inputs = values.numel() // values.shape[0]
    groups = 1
    if grid.granularity == "per group":
        if inputs % GROUP:
            raise UserError(
                f"groups of {GROUP} inputs do not fill a weight with {inputs}; use per channel"
            )
        groups = inputs // GROUP
    parts = values.detach().double().reshape(rows, groups, -1)  # rounding is then the only error
    if grid.zero == "symmetric":
        largest = 2 ** (grid.bits - 1) - 1
        steps = _nonzero(parts.abs().amax(-1) / largest)
        codes = (parts / steps[..., None]).round()
        zeros = torch.zeros_like(steps)
    else:
        low, high = parts.amin(-1).clamp(max=0), parts.amax(-1).clamp(min=0)
        steps = _nonzero((high - low) / (2**grid.bits - 1))
        zeros = (-low / steps).round() - 2 ** (grid.bits - 1)
        codes = (parts / steps[..., None]).round() + zeros[..., None]
        codes = codes.clamp(-(2 ** (grid.bits - 1)), 2 ** (grid.bits - 1) - 1)
    return Codes(codes.to(torch.int8).view_as(values), steps, zeros.long())


def groups_fit(model: nn.Module) -> bool:
    """Whether groups of `GROUP` inputs fill every linear of a model."""
    linears = (module for module in model.modules() if isinstance(module, nn.Linear))
    return all(linear.in_features % GROUP == 0 for linear in linears)


def rounded(values: Tensor, grid: Grid) -> Tensor:
    """The numbers of the grid nearest to ``values``, in their own dtype."""
    return to_grid(values, grid).values.to(values.dtype)


def _nonzero(steps: Tensor) -> Tensor:
    return torch.where(steps > 0, steps, 1.0)
