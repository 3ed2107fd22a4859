"""Heads that share keys and values, heads of any width, and norms of queries and keys."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from reference_model.cache import KVCache
from reference_model.costs import kv_cache_bytes, lora_parameters
from reference_model.lora import LoRAConfig, adapter_parameters, add_adapters
from reference_model.model import GPT
from reference_model.parts import parts_with
from reference_model.quantization.int8 import with_int8_linears
from tests.reference_model.tiny import TOKENS

SHAPES = [(6, 1, 4), (6, 2, 4), (6, 3, 4), (6, 6, 4), (2, 1, 20), (3, 3, 2)]  # H, G, D
SHAPE_NAMES = "n_head", "n_kv_head", "d_head"


def shaped(tiny_model: Callable[..., GPT], shape: tuple[int, ...], **choices: object) -> GPT:
    return tiny_model(**dict(zip(SHAPE_NAMES, shape, strict=True)), n_embd=12, **choices)


@pytest.mark.parametrize("qk_norm", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_equals_one_query_at_a_time(
    tiny_model: Callable[..., GPT],
    plain_attention: Callable[..., Tensor],
    shape: tuple[int, ...],
    qk_norm: bool,
) -> None:
    attention = shaped(tiny_model, shape, qk_norm=qk_norm).h[1].attn
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    with torch.no_grad():
        assert (attention(x) - plain_attention(attention, x)).abs().max() < 1e-12


def test_sharing_is_having_the_same_keys_and_values_in_several_heads(
    tiny_model: Callable[..., GPT],
) -> None:
    grouped = shaped(tiny_model, (6, 2, 4), position="rope")
    every = shaped(tiny_model, (6, 6, 4), position="rope")
    every.load_state_dict(
        {
            name: _repeated(tensor) if ".c_attn." in name else tensor
            for name, tensor in grouped.state_dict().items()
        }
    )
    with torch.no_grad():
        assert (grouped(TOKENS) - every(TOKENS)).abs().max() < 1e-12


def _repeated(fused: Tensor) -> Tensor:
    """Rows of queries, keys and values, those of 2 heads three times each."""
    queries, *shared = fused.split([24, 8, 8])
    return torch.cat(
        [queries, *(x.unflatten(0, (2, 4)).repeat_interleave(3, 0).flatten(0, 1) for x in shared)]
    )


@pytest.mark.parametrize("position", ["learned", "alibi"])
def test_a_step_of_one_token_reads_the_keys_of_its_own_group(
    tiny_model: Callable[..., GPT], position: str
) -> None:
    model = shaped(tiny_model, (6, 2, 4), position=position)
    cache = KVCache(model.config, 2, 12, torch.float64)
    with torch.no_grad():
        alone = torch.cat([model(token, cache) for token in TOKENS.split(1, dim=1)], dim=1)
        assert (alone - model(TOKENS)).abs().max() < 1e-12


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_cache_holds_the_heads_of_keys_alone(
    tiny_model: Callable[..., GPT], shape: tuple[int, ...]
) -> None:
    config = shaped(tiny_model, shape).config
    assert KVCache(config, 3, 7).nbytes == kv_cache_bytes(config, 7, batch_size=3)
    assert KVCache(config, 3, 7).keys[0].shape == (3, shape[1], 7, shape[2])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_parts_are_as_wide_as_their_heads(
    tiny_model: Callable[..., GPT], shape: tuple[int, ...]
) -> None:
    heads, shared, width = shape
    model = shaped(tiny_model, shape)
    for role, count in (("query", heads), ("key", shared), ("value", shared)):
        for part in parts_with(model, role):
            assert part.outputs.stop - part.outputs.start == count * width


@pytest.mark.parametrize("target", ["query", "key", "value", "qkv", "attention_output"])
def test_adapters_of_shared_heads_count_as_their_closed_form_says(
    tiny_model: Callable[..., GPT], target: str
) -> None:
    model = shaped(tiny_model, (6, 2, 4))
    add_adapters(model, LoRAConfig(3, targets=(target,)))
    counted = sum(parameter.numel() for parameter in adapter_parameters(model))
    assert counted == lora_parameters(model.config, 3, (target,))


def test_int8_leaves_the_norms_of_queries_and_keys_alone(tiny_model: Callable[..., GPT]) -> None:
    model = shaped(tiny_model, (6, 2, 4), qk_norm=True, position="rope").float()
    before = copy.deepcopy(model.h[0].attn.q_norm.state_dict())
    rewritten = with_int8_linears(model).model
    assert type(rewritten.h[0].attn.q_norm) is type(model.h[0].attn.q_norm)
    for name, tensor in rewritten.h[0].attn.q_norm.state_dict().items():
        assert torch.equal(tensor, before[name])
    with torch.no_grad():
        moved = (rewritten(TOKENS) - model(TOKENS)).abs().max()
    assert 0 < moved < 1


def test_a_static_cache_serves_shared_heads(tiny_model: Callable[..., GPT]) -> None:
    from reference_model.cache import StaticKVCache

    model = shaped(tiny_model, (6, 2, 4), position="rope")
    cache = StaticKVCache(model.config, 2, 12, torch.float64)
    with torch.no_grad():
        found = torch.cat([model(part, cache) for part in TOKENS.split([5, 1, 6], dim=1)], dim=1)
        assert (found - model(TOKENS)).abs().max() < 1e-12
