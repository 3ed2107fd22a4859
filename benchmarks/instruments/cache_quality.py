"""What a compressed KV cache does to a model's predictions, and to each attention.

Nothing here reads a key or value that the cache was not asked for: the model reads each window
through the cache itself, and a cache that changed nothing at all is an error. Every variant reads
the same windows as the model without a cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.instruments.windows import Windows
from benchmarks.subjects.built import Model
from reference_model.cache import KVCache
from reference_model.quantization.kv_cache import QuantizedKVCache

Array = NDArray[np.float64]

# Mean KL, nats: float32's rounding alone leaves 1e-8 at the most, as do keys and values in float16,
# and 8 bits leave 1e-5. Below it a cache has compressed nothing that could be seen.
LEAST_DIVERGENCE = 1e-7
EXACT_BITS = 16  # a value, of tokens that are held exactly: the model's own


@dataclass
class Quality:
    """Of each predicted token, (windows, T) each, once all windows are read."""

    losses: Array  # nats
    divergences: Array  # KL(uncompressed ‖ compressed) of the predictions, nats
    agreements: Array  # 1 where the likeliest token is the same, else 0


@torch.inference_mode()
def qualities(
    model: nn.Module,
    windows: Windows,
    caches: Mapping[str, Callable[[int], Any]],
    batch_size: int = 8,
    may_be_exact: Container[str] = (),
) -> tuple[Array, dict[str, Quality]]:
    """Losses of the model without a cache (windows, T), and `Quality` through each cache.

    ``caches`` make an empty cache for so many sequences. Raises ValueError for losses that are not
    finite, and for a cache through which no logit changed, unless it is one that ``may_be_exact``.
    """
    plain: list[Tensor] = []
    rows: dict[str, list[tuple[Tensor, ...]]] = {name: [] for name in caches}
    for x, y in windows.batches(batch_size, next(model.parameters()).device):
        logits = model(x).float()  # (B, T, V)
        expected = logits.log_softmax(-1)
        plain.append(_losses(expected, y))
        likely, probabilities = logits.argmax(-1), expected.exp()
        for name, make in caches.items():
            found = model(x, make(len(x))).float()
            log_found = found.log_softmax(-1)
            rows[name].append(
                (
                    _losses(log_found, y),
                    (probabilities * (expected - log_found)).sum(-1),
                    found.argmax(-1) == likely,
                )
            )
    found_qualities = {
        name: Quality(*(_array(torch.cat(column)) for column in zip(*parts, strict=True)))
        for name, parts in rows.items()
    }
    for name, quality in found_qualities.items():
        if not np.isfinite(quality.losses).all():
            raise ValueError(f"{name}: some losses are not finite")
        if name not in may_be_exact and quality.divergences.mean() < LEAST_DIVERGENCE:
            raise ValueError(
                f"{name}: predictions are what they were without it, so that nothing was compressed"
            )
    return _array(torch.cat(plain)), found_qualities


def _losses(logs: Tensor, y: Tensor) -> Tensor:
    """Of logs of probabilities (B, T, V) and targets (B, T): (B, T)."""
    return -logs.gather(-1, y[..., None])[..., 0]


def mean_bits(coded: float, encoded: Callable[[int], int], tokens: int) -> float:
    """Bits a value that are held while a text of so many tokens is read: a mean over its positions.

    ``coded`` are those of what is encoded, scales included. Of the first n tokens ``encoded(n)``
    are; the others are held exactly. Early on most of what is read is recent.
    """
    lengths = range(1, tokens + 1)
    shares = np.array([encoded(length) / length for length in lengths])
    return float((coded * shares + EXACT_BITS * (1 - shares)).mean())


def _array(values: Tensor) -> Array:
    return values.double().cpu().numpy()


@dataclass
class AttentionErrors:
    """Of one cache, a mean per sequence over layers, heads and queries, in the order they came."""

    output_errors: list[float] = field(default_factory=list)  # ‖y − ŷ‖² / ‖y‖²
    # KL(exact ‖ decoded) of the weights; empty where some tokens are read exactly
    divergences: list[float] = field(default_factory=list)


class AttentionProbe(KVCache):
    """A plain cache that computes, beside every attention, what it would be through other caches.

    What the model goes on with is exact: each layer's error is its own and not that of those
    before it. For prompts read at once into an empty cache, by models whose positions add no bias
    to the scores.
    """

    def __init__(
        self,
        model: Model,
        batch_size: int,
        capacity: int,
        caches: Mapping[str, Callable[[int], QuantizedKVCache]],
    ) -> None:
        weight = model.wte.weight
        super().__init__(model.config, batch_size, capacity, weight.dtype, weight.device)
        self.caches = {name: make(batch_size) for name, make in caches.items()}
        # Weights are worked out from decoded keys, of a cache apart: each takes a token in once.
        self.decoders = {
            name: caches[name](batch_size)
            for name, cache in self.caches.items()
            if cache.window == cache.sinks == 0 and cache.block == 1
        }
        zeros = torch.zeros(batch_size, dtype=torch.float64, device=weight.device)
        self.output_errors = {name: zeros.clone() for name in self.caches}  # sums over layers
        self.divergences = {name: zeros.clone() for name in self.decoders}

    def attend(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """As in `KVCache`; raises ValueError on what is no whole prompt."""
        if mask is not None or self._lengths[layer]:
            raise ValueError("the probe reads whole prompts, into an empty cache")
        exact = _log_weights(q, k)
        weights = exact.exp()
        y = weights @ shared(v, q)
        for name, cache in self.caches.items():
            error = cache.attend(layer, q, k, v) - y
            relative = error.square().sum((1, 2, 3)) / y.square().sum((1, 2, 3))
            self.output_errors[name] += relative.double()
        for name, cache in self.decoders.items():
            decoded = _log_weights(q, cache.update(layer, k, v)[0])
            # Where nobody may look, both are −∞.
            apart = torch.where(exact == -torch.inf, 0.0, exact - decoded)
            self.divergences[name] += (weights * apart).sum(-1).mean(dim=(1, 2)).double()
        return super().attend(layer, q, k, v, mask)


def shared(held: Tensor, q: Tensor) -> Tensor:
    """Keys or values (B, Hkv, T, D) of the heads of q (B, H, T, D), each as often as it is read."""
    return held.repeat_interleave(q.shape[1] // held.shape[1], dim=1)


def _log_weights(q: Tensor, k: Tensor) -> Tensor:
    """log softmax(q kᵀ / √D) of a whole prompt, (B, H, T, T)."""
    scores = q @ shared(k, q).mT / math.sqrt(q.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1)
    return scores.masked_fill(future, -torch.inf).log_softmax(-1)


@torch.inference_mode()
def attention_errors(
    model: Model,
    windows: Windows,
    caches: Mapping[str, Callable[[int], QuantizedKVCache]],
    batch_size: int = 4,
) -> dict[str, AttentionErrors]:
    """Of each cache, over the windows; ``caches`` are made as in `qualities`."""
    found = {name: AttentionErrors() for name in caches}
    for x, _ in windows.batches(batch_size, model.wte.weight.device):
        probe = AttentionProbe(model, len(x), x.shape[1], caches)
        model(x, probe)
        for name, sums in probe.output_errors.items():
            found[name].output_errors += (sums / model.config.n_layer).tolist()
        for name, sums in probe.divergences.items():
            found[name].divergences += (sums / model.config.n_layer).tolist()
    for name, each in found.items():
        if not np.isfinite([*each.divergences, *each.output_errors]).all():
            raise ValueError(f"{name}: some errors of attention are not finite")
    return found
