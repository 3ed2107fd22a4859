"""A cache as full as it is asked to be, with keys and values of no text."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model
    from reference_model.cache import KVCache
    from reference_model.quantization.kv_cache import QuantizedKVCache

PIECE = 256  # tokens that are taken in at once


def fill(cache: KVCache, model: Model, tokens: int, layers: Iterable[int] | None = None) -> None:
    """Random keys and values of so many tokens, in the model's dtype, in pieces; of all layers."""
    config, weight = model.config, model.wte.weight
    layers = range(config.n_layer) if layers is None else [*layers]
    for start in range(0, tokens, PIECE):
        shape = (2, cache.batch_size, config.n_kv_head, min(PIECE, tokens - start), config.d_head)
        rows = torch.randn(shape, dtype=weight.dtype, device=weight.device)
        for layer in layers:
            cache.append(layer, rows[0], rows[1])


def fill_by_repeating(cache: QuantizedKVCache, model: Model, tokens: int) -> None:
    """The same for a codec that encodes slowly: one piece is encoded, and its bytes are repeated.

    What a step takes depends on how many tokens there are, and not on whether they differ. For
    caches without exact tokens, and so for whole blocks. Raises ValueError for others.
    """
    piece = min(tokens, math.lcm(PIECE, cache.block))
    if cache.encoded(tokens) != tokens or tokens % piece:
        raise ValueError(f"{tokens} tokens are no whole number of encoded pieces of {piece}")
    for layer, stores in enumerate(cache.stores):
        others = cache.stores[0]
        alike = all(a.codec is b.codec for a, b in zip(stores, others, strict=True))
        if not (layer and alike):
            fill(cache, model, piece, [layer])
        for store, other in zip(stores, others, strict=True):
            blocks, all_blocks = (n // store.codec.block for n in (piece, tokens))
            for part, of_other in zip(store.parts, other.parts, strict=True):
                encoded = (of_other if alike else part)[..., :blocks, :].clone()
                part[..., :all_blocks, :] = encoded.repeat(1, 1, 1, all_blocks // blocks, 1)
    cache._lengths = [tokens] * len(cache.stores)
