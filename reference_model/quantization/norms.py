"""LayerNorm and RMSNorm under INT8, one thing at a time: weights, input, statistics.

What an 8-bit accelerator would do to a norm, to see whether it does harm. Fixed point: a number
with f fractional bits is a whole number that counts 2^−f.

The statistics of integers, for a row of C int8 codes q of one input step s (x ≈ s q):

    mean      m = round(2^f Σ q / C)                    32 bits, f fractional ones
    deviation d = 2^f q − m                             (RMSNorm: d = 2^f q)
    variance  v = round(Σ d² / C) + round(2^2f ε / s²)  64 bits, 2f fractional ones
    deviation's root r = ⌊√v⌋, by whole numbers         f fractional bits
    result    y = round(2^F d / r) / 2^F                F = 10 fractional bits

so that s cancels, but for ε. This is the way of I-BERT (2101.01321), whose root is found by
Newton's steps; here it is the exact one, which those steps end at.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from reference_model.config import check_choices
from reference_model.errors import UserError
from reference_model.norms import wide
from reference_model.quantization.grid import Grid, rounded

LARGEST, SMALLEST = 127, 1e-30
FRACTION, RESULT_FRACTION = 8, 10  # bits


@dataclass(frozen=True)
class NormScheme:
    """What of a norm is 8 bits wide. An integer's statistics are those of a rounded input."""

    weights: Literal["float", "int8"] = "float"  # γ and β, per tensor
    input: Literal["float", "int8"] = "float"  # per tensor: one step for all that comes in a call
    statistics: Literal["float", "integer"] = "float"

    def __post_init__(self) -> None:
        check_choices(self)


class Int8Norm(nn.Module):
    """A norm as it was, but for what the scheme says. ``fraction`` is f above.

    It computes in float32 at least, as PyTorch's own norms do: float16 has no square of 256.
    """

    def __init__(
        self, norm: nn.LayerNorm | nn.RMSNorm, scheme: NormScheme, fraction: int = FRACTION
    ) -> None:
        super().__init__()
        self.scheme, self.fraction = scheme, fraction
        self.centred = isinstance(norm, nn.LayerNorm)
        epsilon = norm.eps
        self.epsilon = torch.finfo(norm.weight.dtype).eps if epsilon is None else epsilon
        self.weight, self.bias = norm.weight, getattr(norm, "bias", None)
        if scheme.weights == "int8":
            per_tensor = Grid(granularity="per tensor")
            self.weight = nn.Parameter(rounded(norm.weight.detach(), per_tensor))
            if self.bias is not None:
                self.bias = nn.Parameter(rounded(self.bias.detach(), per_tensor))

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, C), in the dtype of x, or in float32 under autocast."""
        (x,) = wide(x)
        dtype = x.dtype
        x = x.to(torch.promote_types(dtype, torch.float32))
        step = x.abs().amax().clamp(min=SMALLEST) / LARGEST  # a scalar
        if self.scheme.statistics == "integer":
            y = self._of_integers((x / step).round().to(torch.int64), step).to(x.dtype)
            y = torch.where(step.isfinite(), y, torch.nan)  # whole numbers know no NaN
        else:
            if self.scheme.input == "int8":
                x = (x / step).round() * step
            if self.centred:
                x = x - x.mean(-1, keepdim=True)
            y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.epsilon)
        y = y * self.weight
        return (y if self.bias is None else y + self.bias).to(dtype)

    def _of_integers(self, codes: Tensor, step: Tensor) -> Tensor:
        """Codes (…, C) int64 of the input → (…, C) float64, on the grid of the result."""
        width, one = codes.shape[-1], 2**self.fraction
        deviation = one * codes
        if self.centred:
            deviation = deviation - _rounded_ratio(one * codes.sum(-1, keepdim=True), width)
        variance = _rounded_ratio(deviation.square().sum(-1, keepdim=True), width)
        # Where the input is so large that ε rounds to nothing, a row of equal codes has no root.
        epsilon = (one**2 * self.epsilon / step.double() ** 2).round().long().clamp(min=1)
        root = _whole_root(variance + epsilon)
        return _rounded_ratio(deviation * 2**RESULT_FRACTION, root).double() / 2**RESULT_FRACTION


def _rounded_ratio(numerator: Tensor, denominator: Tensor | int) -> Tensor:
    """Whole numbers: the nearest to the ratio, for a denominator above 0; ties go up."""
    return torch.div(2 * numerator + denominator, 2 * denominator, rounding_mode="floor")


def _whole_root(values: Tensor) -> Tensor:
    """⌊√values⌋ of whole numbers ≥ 1, exactly."""
    root = values.double().sqrt().long()  # off by one at the most
    root = torch.where(root * root > values, root - 1, root)
    return torch.where((root + 1) * (root + 1) <= values, root + 1, root).clamp(min=1)


@torch.no_grad()
def with_int8_norms(
    model: nn.Module, scheme: NormScheme, fraction: int = FRACTION
) -> tuple[nn.Module, list[str]]:
    """A copy with every norm under the scheme, and their names; all else stays as it is.

    Raises `UserError` where no norm computes in floats.
    """
    result = copy.deepcopy(model)
    names = [
        name
        for name, module in result.named_modules()
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm))
    ]
    if not names:
        raise UserError(f"{type(model).__name__} has no norms in floating point; give one that has")
    for name in names:
        parent, _, child = name.rpartition(".")
        norm = result.get_submodule(name)
        assert isinstance(norm, (nn.LayerNorm, nn.RMSNorm))
        setattr(result.get_submodule(parent), child, Int8Norm(norm, scheme, fraction))
    return result, names
