"""A cache as full as it is asked to be, with keys and values of no text."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model
    from reference_model.cache import KVCache
    from reference_model.quantization.kv_cache import QuantizedKVCache

PIECE = 256  # tokens that are taken in at once


def fill(cache: KVCache, model: Model, tokens: int) -> None:
    """Random keys and values of so many tokens, in the model's dtype, in pieces."""
    config, weight = model.config, model.wte.weight
    for start in range(0, tokens, PIECE):
        shape = (2, cache.batch_size, config.n_kv_head, min(PIECE, tokens - start), config.d_head)
        rows = torch.randn(shape, dtype=weight.dtype, device=weight.device)
        for layer in range(config.n_layer):
            cache.append(layer, rows[0], rows[1])


def fill_by_repeating(cache: QuantizedKVCache, model: Model, tokens: int) -> None:
    """The same for a codec that encodes slowly: one piece is encoded, and its bytes are repeated.

    What a step takes depends on how many tokens there are, and not on whether they differ. For
    caches without exact tokens, and so for whole blocks. Raises ValueError for others.
    """
    piece = min(tokens, math.lcm(PIECE, cache.block))
    if cache.encoded(tokens) != tokens or tokens % piece:
        raise ValueError(f"{tokens} tokens are no whole number of encoded pieces of {piece}")
    fill(cache, model, piece)
    for of_layer in cache.stores:
        for store in of_layer:
            of_piece = piece // store.codec.block
            for part in store.parts:
                for first in range(of_piece, tokens // store.codec.block, of_piece):
                    part[..., first : first + of_piece, :] = part[..., :of_piece, :]
    cache._lengths = [tokens] * len(cache.stores)
