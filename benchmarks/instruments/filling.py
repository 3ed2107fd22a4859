"""A cache as full as it is asked to be, with keys and values of no text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model
    from reference_model.cache import KVCache

PIECE = 256  # tokens that are taken in at once


def fill(cache: KVCache, model: Model, tokens: int) -> None:
    """Random keys and values of so many tokens, in the model's dtype, in pieces."""
    config, weight = model.config, model.wte.weight
    for start in range(0, tokens, PIECE):
        shape = (2, cache.batch_size, config.n_kv_head, min(PIECE, tokens - start), config.d_head)
        rows = torch.randn(shape, dtype=weight.dtype, device=weight.device)
        for layer in range(config.n_layer):
            cache.append(layer, rows[0], rows[1])
