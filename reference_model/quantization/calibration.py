"""What codecs are fitted to: queries, keys and values of a text, layer by layer.

The text is no part of what a codec is judged by afterwards. Keys and values are taken as the cache
encodes them, without their biases where it drops these.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reference_model.errors import UserError
from reference_model.quantization.baselines import Plain
from reference_model.quantization.kv_cache import QuantizedKVCache

if TYPE_CHECKING:
    from reference_model.model import GPT


@dataclass(frozen=True)
class Calibration:
    """Of one layer. Second moments are those about 0, means over its heads: (D, D) float64."""

    queries: Tensor
    values: Tensor  # each value as often as its key scores: k M kᵀ, M the moment of its queries
    largest_key: float
    largest_value: float
    tokens: int  # of the text


@torch.inference_mode()
def calibrate(
    model: GPT, texts: Sequence[Tensor], *, drop_biases: bool = True
) -> list[Calibration]:
    """Each layer's, of texts: token ids (B, T) each. Reads them twice.

    The second time, since what a key scores takes the moment of all queries.
    """
    if not texts:
        raise UserError("there is no text to calibrate by; give token ids (B, T)")
    config, tokens = model.config, sum(text.numel() for text in texts)
    sharing = config.n_head // config.n_kv_head  # queries of a token that meet the same key
    moments = torch.stack([_read(model, text, drop_biases).sums for text in texts]).sum(0)
    moments /= tokens * sharing
    weighted = torch.zeros_like(moments)
    scored = moments.new_zeros(moments.shape[:2])
    largest = moments.new_zeros(config.n_layer, 2)
    for text in texts:
        cache = _read(model, text, drop_biases)
        for layer, (store,) in enumerate(cache.stores):
            held = store.parts[0].transpose(1, 2).flatten(2, 3)  # keys and values: (2, G, B T, D)
            k, v = both = held.double()
            largest[layer] = largest[layer].maximum(both.abs().amax((1, 2, 3)))
            scores = torch.linalg.vecdot(k @ moments[layer], k)  # (G, B T)
            weighted[layer] += (v * scores[..., None]).mT @ v
            scored[layer] += scores.sum(-1)
    of_values = weighted / scored[..., None, None]
    return [
        Calibration(of_q.mean(0), of_v.mean(0), largest_key, largest_value, tokens)
        for of_q, of_v, (largest_key, largest_value) in zip(
            moments, of_values, largest.tolist(), strict=True
        )
    ]


class _Exact(QuantizedKVCache):
    """Keys and values as they are, and the sums of q qᵀ for each layer and head of keys."""

    sums: Tensor  # (layers, G, D, D) float64

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """As in `KVCache`."""
        grouped = q.double().unflatten(1, (k.shape[1], -1)).transpose(0, 1).flatten(1, -2)
        self.sums[layer] += grouped.mT @ grouped
        return super().attend(layer, q, k, v, mask)


def _read(model: GPT, text: Tensor, drop_biases: bool) -> _Exact:
    config = model.config
    width, (batch_size, length) = config.d_head, text.shape
    codec = Plain(width, torch.float32)
    cache = _Exact(model, batch_size, length, codec, drop_biases=drop_biases)
    cache.sums = torch.zeros(
        config.n_layer, config.n_kv_head, width, width, dtype=torch.float64, device=text.device
    )
    model(text, cache)
    return cache
