"""Small models, ours, transformers' and PEFT's, and attention as the textbook writes it out."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reference_model.config import GPTConfig
from reference_model.model import GPT, Attention
from tests.reference_model.tiny import TINY, enlarge


@pytest.fixture
def tiny_model() -> Callable[..., GPT]:
    """tiny_model(dtype=…, **choices) → a model in evaluation mode with weights of some size."""

    def build(dtype: torch.dtype = torch.float64, **choices: object) -> GPT:
        model = GPT(GPTConfig(**{**TINY, **choices})).to(dtype)
        enlarge(model)
        return model.eval()

    return build


@pytest.fixture(scope="session")
def transformers() -> ModuleType:
    module: ModuleType = pytest.importorskip("transformers")
    module.logging.disable_progress_bar()
    return module


@pytest.fixture(scope="session")
def tiny_gpt2(transformers: ModuleType) -> Callable[..., Any]:
    """tiny_gpt2(seed, **settings) → transformers' GPT-2 of two layers, which ends no text.

    It is in evaluation mode and in float32; settings are those of its configuration.
    """
    sizes = {"vocab_size": 50, "n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    without_ends = {"bos_token_id": None, "eos_token_id": None}

    def build(seed: int = 0, **settings: Any) -> Any:
        torch.manual_seed(seed)
        config = transformers.GPT2Config(**{**sizes, **without_ends, **settings})
        return transformers.GPT2LMHeadModel(config).eval()

    return build


@pytest.fixture(scope="session")
def peft(transformers: ModuleType) -> ModuleType:
    module: ModuleType = pytest.importorskip("peft")
    return module


def pytest_itemcollected(item: pytest.Item) -> None:
    if "peft" in getattr(item, "fixturenames", ()):
        # It asks transformers by a name that transformers has given up.
        warning = "ignore:`is_gradient_checkpointing` is dep:FutureWarning"
        item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def with_pefts_adapters(peft: ModuleType) -> Callable[..., Any]:
    """with_pefts_adapters(model, **choices) → PEFT's model of it, with random A and B of rank 4."""

    def wrap(model: nn.Module, **choices: Any) -> Any:
        config = peft.LoraConfig(**{"r": 4, "init_lora_weights": False, **choices})
        torch.manual_seed(0)
        return peft.get_peft_model(model, config).eval()

    return wrap


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
        batch, length, _ = x.shape
        (heads, kv_heads, _), d_head = attention.heads, attention.d_head
        widths = [count * d_head for count in attention.heads]
        out = x.new_zeros(batch, length, heads * d_head)
        for b in range(batch):
            qkv = [attention.c_attn(x[b, t]).split(widths) for t in range(length)]
            for h in range(heads):
                part = slice(h * d_head, (h + 1) * d_head)
                shared = h // (heads // kv_heads)
                of_keys = slice(shared * d_head, (shared + 1) * d_head)
                queries = [turn(attention.q_norm(q[part]), t) for t, (q, _, _) in enumerate(qkv)]
                keys = [turn(attention.k_norm(k[of_keys]), t) for t, (_, k, _) in enumerate(qkv)]
                for t in range(length):
                    scores = [
                        math.exp(float(queries[t] @ keys[s]) / d_head**0.5 + bias(h, t, s))
                        for s in range(t + 1)
                    ]
                    for s, score in enumerate(scores):
                        out[b, t, part] += score / sum(scores) * qkv[s][2][of_keys]
        return attention.c_proj(out)

    return compute
