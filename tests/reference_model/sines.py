"""Numbers that everybody can make again, for vectors whose codes are known."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from reference_model.quantization.codec import Codec


def sines(*shape: int) -> Tensor:
    """sin(i²) of i = 0, 1, 2, … row by row, taken in float64: float32 of this shape."""
    i = torch.arange(math.prod(shape), dtype=torch.float64)
    return (i * i).sin().float().view(shape)


def squared_error(codec: Codec, x: Tensor) -> float:
    """‖x − x̂‖², of all vectors together."""
    return float((codec.decode(codec.encode(x)) - x).double().square().sum())


def relative_error(codec: Codec, x: Tensor) -> float:
    """‖x − x̂‖² / ‖x‖², of all vectors together."""
    return squared_error(codec, x) / float(x.double().square().sum())
