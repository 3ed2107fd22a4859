"""A KV cache changes what is computed, never what comes out; and no token sees a later one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from reference_model.cache import KVCache
from reference_model.config import GPTConfig
from reference_model.costs import kv_cache_bytes
from reference_model.errors import UserError
from reference_model.model import GPT

CHOICES = [
    *({"position": position} for position in ("learned", "sinusoidal", "rope", "alibi", "none")),
    {"position": "rope", "rope_scaling": "interpolation", "rope_scaling_factor": 4.0},
    {"position": "rope", "rope_scaling": "ntk", "rope_scaling_factor": 4.0},
    *(
        {"position": position, "norm_placement": placement}
        for position in ("learned", "rope", "alibi")
        for placement in ("post", "double", "deepnorm")
    ),
    {"norm": "rmsnorm", "embedding_scale": "sqrt_width", "bias": False, "head": "untied"},
    {"n_kv_head": 1, "position": "rope", "d_head": 6, "qk_norm": True},
    {"n_head": 4, "n_kv_head": 2, "position": "alibi"},
]


def compositions(length: int) -> Iterator[list[int]]:
    """Every way to write length as an ordered sum of positive chunks: 2^(length − 1) of them."""
    if length == 0:
        yield []
    for first in range(1, length + 1):
        for rest in compositions(length - first):
            yield [first, *rest]


def tokens_for(model: GPT, batch_size: int, length: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(model.config.vocab_size, (batch_size, length), generator=generator)


@torch.inference_mode()
def in_chunks(model: GPT, tokens: Tensor, chunks: list[int], dtype: torch.dtype) -> Tensor:
    cache = KVCache(model.config, tokens.shape[0], tokens.shape[1], dtype)
    return torch.cat([model(part, cache) for part in tokens.split(chunks, dim=1)], dim=1)


# ---- the same logits


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: "-".join(map(str, c.values())))
def test_logits_are_the_same_for_every_chunking_of_the_prompt(
    tiny_model: Callable[..., GPT], choices: dict[str, str]
) -> None:
    model = tiny_model(**choices)
    ways = list(compositions(5))
    assert len(ways) == 16
    for batch_size in (1, 3):
        tokens = tokens_for(model, batch_size, 5)
        with torch.inference_mode():
            expected = model(tokens)
        for chunks in ways:
            found = in_chunks(model, tokens, chunks, torch.float64)
            assert (found - expected).abs().max() < 1e-12, chunks


def test_logits_are_the_same_to_float_tolerance_in_float32(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model(torch.float32)
    tokens = tokens_for(model, 2, 12)
    with torch.inference_mode():
        expected = model(tokens)
    for chunks in ([1] * 12, [7, 5], [11, 1]):
        found = in_chunks(model, tokens, chunks, torch.float32)
        assert (found - expected).abs().max() < 1e-5


def test_a_cache_of_smaller_values_costs_accuracy_and_keeps_the_dtype_of_the_model(
    tiny_model: Callable[..., GPT],
) -> None:
    model = tiny_model(torch.float32)
    tokens = tokens_for(model, 2, 12)
    with torch.inference_mode():
        expected = model(tokens)
    found = in_chunks(model, tokens, [6, 1, 5], torch.float16)
    assert found.dtype == torch.float32
    assert 1e-5 < (found - expected).abs().max() < 0.05


# ---- the cache itself


def test_a_cache_returns_what_it_was_given_in_order() -> None:
    config = GPTConfig(vocab_size=5, n_layer=2, n_head=2, n_embd=4)
    cache = KVCache(config, batch_size=3, capacity=6)
    k, v = torch.randn(2, 3, 2, 5, 2), torch.randn(2, 3, 2, 5, 2)
    for layer in (0, 1):
        cache.update(layer, k[layer, :, :, :2], v[layer, :, :, :2])
    assert cache.length == 2
    for layer in (0, 1):
        held_k, held_v = cache.update(layer, k[layer, :, :, 2:], v[layer, :, :, 2:])
        assert torch.equal(held_k, k[layer])
        assert torch.equal(held_v, v[layer])
    assert cache.length == 5


def test_length_counts_only_tokens_that_every_layer_has_seen() -> None:
    config = GPTConfig(vocab_size=5, n_layer=2, n_head=1, n_embd=2)
    cache = KVCache(config, batch_size=1, capacity=3)
    row = torch.ones(1, 1, 1, 2)
    cache.update(0, row, row)
    assert cache.length == 0
    cache.update(1, row, row)
    assert cache.length == 1


@pytest.mark.parametrize("first", [4, 5])
def test_a_token_beyond_the_capacity_is_refused_and_the_cache_stays_as_it_was(
    tiny_model: Callable[..., GPT], first: int
) -> None:
    model = tiny_model()
    tokens = tokens_for(model, 2, 6)
    cache = KVCache(model.config, 2, 5, torch.float64)
    with torch.inference_mode():
        model(tokens[:, :first], cache)
        with pytest.raises(UserError, match=r"room for 5 tokens, received token 6; .*larger"):
            model(tokens[:, first:6], cache)
        assert cache.length == first
        if first == 4:
            expected = model(tokens[:, :5])[:, -1]
            assert (model(tokens[:, 4:5], cache)[:, -1] - expected).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("dtype", "bytes_per_value"), [(torch.float32, 4), (torch.float16, 2), (torch.float64, 8)]
)
def test_bytes_reserved_and_used_equal_the_closed_form(
    dtype: torch.dtype, bytes_per_value: int
) -> None:
    config = GPTConfig(vocab_size=5, n_layer=3, n_head=2, n_embd=10)
    cache = KVCache(config, batch_size=4, capacity=7, dtype=dtype)
    assert cache.nbytes == 2 * 3 * 7 * 10 * 4 * bytes_per_value
    assert cache.nbytes == kv_cache_bytes(config, 7, 4, bytes_per_value)
    assert cache.nbytes_used == 0
    for layer in range(3):
        cache.update(layer, torch.ones(4, 2, 2, 5), torch.ones(4, 2, 2, 5))
    assert cache.nbytes_used == kv_cache_bytes(config, 2, 4, bytes_per_value)
    assert cache.nbytes == kv_cache_bytes(config, 7, 4, bytes_per_value)


# ---- causality


@pytest.mark.parametrize("choices", CHOICES, ids=lambda c: "-".join(map(str, c.values())))
@pytest.mark.parametrize("chunks", [None, [2, 1, 5]], ids=["uncached", "cached"])
def test_a_changed_token_changes_nothing_before_it_and_everything_from_it_on(
    tiny_model: Callable[..., GPT], choices: dict[str, str], chunks: list[int] | None
) -> None:
    model = tiny_model(**choices)

    def logits(tokens: Tensor) -> Tensor:
        if chunks is not None:
            return in_chunks(model, tokens, chunks, torch.float64)
        with torch.inference_mode():
            return model(tokens)

    tokens = tokens_for(model, 1, 8)
    before = logits(tokens)
    for t in range(8):
        changed = tokens.clone()
        changed[0, t] = (changed[0, t] + 1) % model.config.vocab_size
        change = (logits(changed) - before).abs().amax(dim=(0, 2))  # (T,)
        assert (change[:t] == 0).all(), f"token {t} is seen before it comes"
        assert (change[t:] > 0).all(), f"token {t} is not seen after it came"


def test_the_last_logits_alone_are_the_last_of_all(tiny_model: Callable[..., GPT]) -> None:
    model = tiny_model()
    tokens = tokens_for(model, 2, 6)
    with torch.inference_mode():
        last, every = model(tokens, last_only=True), model(tokens)
    assert last.shape == (2, 1, 23)
    assert (last - every[:, -1:]).abs().max() < 1e-13
