"""Norms and where they sit, against the formulas written out on their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from reference_model.config import GPTConfig
from reference_model.model import GPT, MLP, Block
from reference_model.norms import deepnorm_gain, make_norm, residual_scale

PLACEMENTS = ["pre", "post", "double", "deepnorm"]


def plain_layernorm(norm: nn.Module, x: Tensor, epsilon: float = 1e-5) -> Tensor:
    """(x − mean) / √(variance + ε) · γ + β over the last axis."""
    out = torch.empty_like(x)
    for at in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[:-1])).tolist():
        row = x[tuple(at)].tolist()
        mean = sum(row) / len(row)
        variance = sum((value - mean) ** 2 for value in row) / len(row)
        scaled = torch.tensor([(v - mean) / math.sqrt(variance + epsilon) for v in row])
        out[tuple(at)] = scaled * norm.weight + (norm.bias if norm.bias is not None else 0.0)
    return out


def plain_rmsnorm(norm: nn.Module, x: Tensor, epsilon: float = 1e-5) -> Tensor:
    """x / √(mean of squares + ε) · γ over the last axis."""
    out = torch.empty_like(x)
    for at in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[:-1])).tolist():
        row = x[tuple(at)].tolist()
        root = math.sqrt(sum(value**2 for value in row) / len(row) + epsilon)
        out[tuple(at)] = torch.tensor([value / root for value in row]) * norm.weight
    return out


PLAIN_NORMS = {"layernorm": plain_layernorm, "rmsnorm": plain_rmsnorm}


def plain_mlp(mlp: MLP, x: Tensor) -> Tensor:
    """W₂ g(W₁ x) with g(u) = u/2 · (1 + tanh(√(2/π)(u + 0.044715 u³)))."""
    u = x @ mlp.c_fc.weight.T + mlp.c_fc.bias
    g = 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3)))
    return g @ mlp.c_proj.weight.T + mlp.c_proj.bias


def plain_block(block: Block, x: Tensor, config: GPTConfig, attention: Callable) -> Tensor:
    """The four placements, one line for each half, in the words of their papers."""
    norm = PLAIN_NORMS[config.norm]

    def attend(value: Tensor) -> Tensor:
        return attention(block.attn, value)

    def think(value: Tensor) -> Tensor:
        return plain_mlp(block.mlp, value)

    if config.norm_placement == "pre":
        x = x + attend(norm(block.ln_1, x))
        return x + think(norm(block.ln_2, x))
    if config.norm_placement == "post":
        x = norm(block.ln_1, x + attend(x))
        return norm(block.ln_2, x + think(x))
    if config.norm_placement == "double":
        x = x + norm(block.ln_1_out, attend(norm(block.ln_1, x)))
        return x + norm(block.ln_2_out, think(norm(block.ln_2, x)))
    alpha = math.sqrt(math.sqrt(2 * config.n_layer))
    x = norm(block.ln_1, alpha * x + attend(x))
    return norm(block.ln_2, alpha * x + think(x))


@pytest.fixture(autouse=True)
def _float64() -> Iterator[None]:
    """Python's own floats become float64 tensors."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


# ---- what a norm does


@pytest.mark.parametrize("epsilon", [1e-5, 0.1])
@pytest.mark.parametrize("kind", PLAIN_NORMS)
def test_a_norm_equals_its_formula(kind: str, epsilon: float) -> None:
    norm = make_norm(GPTConfig(norm=kind, norm_epsilon=epsilon, n_embd=12, n_head=1))
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = 3 * torch.randn(2, 4, 12) + 1
    with torch.no_grad():
        assert (norm(x) - PLAIN_NORMS[kind](norm, x, epsilon)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("kind", "bias", "has_bias"),
    [("layernorm", True, True), ("layernorm", False, False), ("rmsnorm", True, False)],
)
def test_only_a_layernorm_with_bias_has_one(kind: str, bias: bool, has_bias: bool) -> None:
    norm = make_norm(GPTConfig(norm=kind, bias=bias))
    assert ("bias" in dict(norm.named_parameters())) == has_bias


# ---- where it sits


@pytest.mark.parametrize("kind", PLAIN_NORMS)
@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_block_equals_its_formula(
    tiny_model: Callable[..., GPT],
    plain_attention: Callable[..., Tensor],
    placement: str,
    kind: str,
) -> None:
    model = tiny_model(norm_placement=placement, norm=kind, n_embd=12, n_layer=3)
    x = 2 * torch.randn(2, 4, 12)
    with torch.no_grad():
        found = model.h[1](x)
        expected = plain_block(model.h[1], x, model.config, plain_attention)
    assert (found - expected).abs().max() < 1e-12


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_whole_model_equals_its_formula(
    tiny_model: Callable[..., GPT], plain_attention: Callable[..., Tensor], placement: str
) -> None:
    model = tiny_model(norm_placement=placement, head="untied", n_embd=12)
    tokens = torch.tensor([[3, 1, 4, 1]])
    with torch.no_grad():
        x = model.wte.weight[tokens] + model.wpe.weight[:4]
        for block in model.h:
            x = plain_block(block, x, model.config, plain_attention)
        if placement in ("pre", "double"):  # the others end in a norm already
            x = plain_layernorm(model.ln_f, x)
        assert (model(tokens) - x @ model.lm_head.weight.T).abs().max() < 1e-12


# ---- DeepNorm's constants


@pytest.mark.parametrize(
    ("layers", "alpha", "beta"), [(2, 2**0.5, 0.5), (8, 2.0, 8**-0.5), (18, 6**0.5, 12**-0.5)]
)
def test_deepnorm_takes_its_constants_from_the_table_of_its_paper(
    layers: int, alpha: float, beta: float
) -> None:
    config = GPTConfig(n_layer=layers, norm_placement="deepnorm")
    assert residual_scale(config) == pytest.approx(alpha, rel=1e-14)
    assert deepnorm_gain(config) == pytest.approx(beta, rel=1e-14)


@pytest.mark.parametrize("placement", ["pre", "post", "double"])
def test_every_other_placement_adds_the_residual_as_it_is(placement: str) -> None:
    assert residual_scale(GPTConfig(norm_placement=placement)) == 1.0
