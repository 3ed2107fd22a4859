"""Small models with weights of some size, and attention written out as the textbook has it."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from reference_model.config import GPTConfig
from reference_model.model import GPT, Attention

TINY = {"vocab_size": 23, "context_length": 12, "n_layer": 2, "n_head": 2, "n_embd": 16}


def enlarge(model: nn.Module, seed: int = 1) -> None:
    """Draw weights as large as trained ones: at initialisation attention is nearly even."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim == 2:
            drawn = noise if "wte" in name or "wpe" in name else noise / parameter.shape[1] ** 0.5
        else:
            drawn = 0.2 * noise + (1.0 if "ln_" in name and name.endswith("weight") else 0.0)
        parameter.data.copy_(drawn)


@pytest.fixture
def tiny_model() -> Callable[..., GPT]:
    """tiny_model(dtype=…, **choices) → a model in evaluation mode with weights of some size."""

    def build(dtype: torch.dtype = torch.float64, **choices: object) -> GPT:
        model = GPT(GPTConfig(**{**TINY, **choices})).to(dtype)
        enlarge(model)
        return model.eval()

    return build


@pytest.fixture
def plain_attention() -> Callable[..., Tensor]:
    """plain_attention(attention, x, turn, bias) → its output (B, T, C), one query at a time.

    turn(vector (D,), position) rotates a query or key; bias(head, query, key) is added to a score.
    """

    def compute(
        attention: Attention,
        x: Tensor,
        turn: Callable[[Tensor, int], Tensor] = lambda vector, position: vector,
        bias: Callable[[int, int, int], float] = lambda head, query, key: 0.0,
    ) -> Tensor:
        batch, length, width = x.shape
        heads, d_head = attention.n_head, width // attention.n_head
        out = torch.zeros_like(x)
        for b in range(batch):
            qkv = [attention.c_attn(x[b, t]).split(width) for t in range(length)]
            for h in range(heads):
                part = slice(h * d_head, (h + 1) * d_head)
                queries = [turn(q[part], t) for t, (q, _, _) in enumerate(qkv)]
                keys = [turn(k[part], t) for t, (_, k, _) in enumerate(qkv)]
                for t in range(length):
                    scores = [
                        math.exp(float(queries[t] @ keys[s]) / d_head**0.5 + bias(h, t, s))
                        for s in range(t + 1)
                    ]
                    for s, score in enumerate(scores):
                        out[b, t, part] += score / sum(scores) * qkv[s][2][part]
        return out @ attention.c_proj.weight.T + attention.c_proj.bias

    return compute
