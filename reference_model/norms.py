"""What kind of normalisation, and DeepNorm's constants. Where it sits is told in `model.Block`.

Under autocast a norm computes in float32 and gives float32, as PyTorch has it on CUDA. On a CPU it
leaves a norm in bfloat16 and adds up the gradients of γ and β in it: they were wrong by 6 to 36 %.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reference_model.config import GPTConfig


class LayerNorm(nn.LayerNorm):
    """`nn.LayerNorm`, in float32 under autocast."""

    def forward(self, input: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        x, weight, bias = wide(input, self.weight, self.bias)
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


class RMSNorm(nn.RMSNorm):
    """`nn.RMSNorm`, in float32 under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, C) → (…, C)."""
        x, weight = wide(x, self.weight)
        return F.rms_norm(x, self.normalized_shape, weight, self.eps)


def wide(x: Tensor, *parameters: Tensor | None) -> tuple[Any, ...]:
    """The same tensors; narrower ones in float32 where autocast is on for the device of x."""
    if x.is_meta or not torch.is_autocast_enabled(x.device.type):  # meta knows no autocast
        return x, *parameters
    return tuple(
        each.float() if each is not None and each.dtype.itemsize < 4 else each
        for each in (x, *parameters)
    )


def make_norm(config: GPTConfig, width: int | None = None) -> nn.Module:
    """(…, C) → (…, C): LayerNorm (1607.06450) or RMSNorm (1910.07467, never a bias).

    ``width``: of what is normed, where it is not the model's C.
    """
    width = config.n_embd if width is None else width
    if config.norm == "rmsnorm":
        return RMSNorm(width, eps=config.norm_epsilon)
    return LayerNorm(width, eps=config.norm_epsilon, bias=config.norm_bias)


def residual_scale(config: GPTConfig) -> float:
    """α of the residual branch x·α + f(x): (2N)^¼ in DeepNorm (2203.00555, table 1), else 1."""
    return (2 * config.n_layer) ** 0.25 if config.norm_placement == "deepnorm" else 1.0


def deepnorm_gain(config: GPTConfig) -> float:
    """β, the Xavier gain of value, output and MLP weights: (8N)^-¼ (2203.00555, table 1)."""
    return (8 * config.n_layer) ** -0.25
