"""What kind of normalisation, and DeepNorm's constants. Where it sits is told in `model.Block`."""

from torch import nn

from reference_model.config import GPTConfig


def make_norm(config: GPTConfig) -> nn.Module:
    """(…, C) → (…, C): LayerNorm (1607.06450) or RMSNorm (1910.07467, never a bias)."""
    if config.norm == "rmsnorm":
        return nn.RMSNorm(config.n_embd, eps=config.norm_epsilon)
    return nn.LayerNorm(config.n_embd, eps=config.norm_epsilon, bias=config.bias)


def residual_scale(config: GPTConfig) -> float:
    """α of the residual branch x·α + f(x): (2N)^¼ in DeepNorm (2203.00555, table 1), else 1."""
    return (2 * config.n_layer) ** 0.25 if config.norm_placement == "deepnorm" else 1.0


def deepnorm_gain(config: GPTConfig) -> float:
    """β, the Xavier gain of value, output and MLP weights: (8N)^-¼ (2203.00555, table 1)."""
    return (8 * config.n_layer) ** -0.25
