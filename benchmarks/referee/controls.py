"""Cases whose answer is known: one cache that changes nothing, and one that has to do harm.

A vector that all keys share adds the same number to all scores of a query, which the softmax does
not see: an exact cache may be given keys so shifted, and nothing changes. A Hadamard matrix without
signs sends such a vector to one coordinate. There a block's scale grows with it, and so do the
errors of its neighbours; with random signs it is spread over all of them.

TurboQuant is not harmed, which is told beside it: its scale is the vector's length, the same for
any rotation, and what it cuts of that one coordinate is again the same for all keys.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from benchmarks.experiments.experiment import Found
from benchmarks.instruments.cache_quality import qualities
from benchmarks.instruments.windows import Windows
from reference_model.quantization.baselines import Plain
from reference_model.quantization.codec import Codec, Parts
from reference_model.quantization.ggml import Q4_0
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model

SHIFT = 2.0  # standard deviations of a layer's keys, added to every channel
SEEDS = 5  # of the signs
WINDOWS = 4  # that the controls read
EQUAL, SHIFTED = "float32", "float32, keys shifted"


class Shifted(Codec):
    """Keys with the same number added to every channel, which nobody takes off again."""

    def __init__(self, codec: Codec, shift: float) -> None:
        self.name, self.width = f"{codec.name}, shifted", codec.width
        self.block, self.layout = codec.block, codec.layout
        self.codec, self.shift = codec, shift

    @property
    def constants(self) -> tuple[Tensor, ...]:
        return self.codec.constants

    def quantize(self, x: Tensor) -> Parts:
        return self.codec.quantize(self.codec.rotate(x + self.shift))

    def dequantize(self, parts: Parts) -> Tensor:
        return self.codec.unrotate(self.codec.dequantize(parts))


def _pairs(width: int) -> dict[str, tuple[Codec, list[Codec]]]:
    """By format: without signs, and with those of each seed."""
    signed = [TurboQuant(width, 3, rotation="hadamard", seed=seed) for seed in range(SEEDS)]
    return {
        "q4_0": (
            Q4_0(width, rotated="keys"),
            [Q4_0(width, rotated="keys", seed=seed) for seed in range(SEEDS)],
        ),
        "turboquant": (TurboQuant(width, 3, rotation="unsigned_hadamard"), [*signed]),
    }


def controls(model: Model, windows: Windows, batch_size: int) -> Found:
    """``changes`` of a window's loss and KL through float32, the largest, without and with a shift.

    ``ratios``: the KL without signs over that with those of each seed, by format, keys shifted.
    """
    width = model.config.d_head
    spreads = key_spreads(model, windows)
    exact = Plain(width, torch.float32)
    caches: dict[str, Callable[[int], QuantizedKVCache]] = {}

    def add(name: str, keys: list[Codec]) -> None:
        values: list[Codec] = [exact] * len(keys)
        tokens = windows.inputs.shape[1]
        caches[name] = partial(_empty, model, tokens, keys, values)

    def shifted(codec: Codec) -> list[Codec]:
        return [Shifted(codec, SHIFT * spread) for spread in spreads]

    add(EQUAL, [exact] * len(spreads))
    add(SHIFTED, shifted(exact))
    for name, (unsigned, signed) in _pairs(width).items():
        add(name, shifted(unsigned))
        for seed, codec in enumerate(signed):
            add(f"{name} {seed}", shifted(codec))
    baseline, found = qualities(model, windows, caches, batch_size, {EQUAL, SHIFTED})
    mean = {name: float(quality.divergences.mean()) for name, quality in found.items()}
    return {
        "changes": {
            name: {
                "loss": float(abs((found[name].losses - baseline).mean(axis=1)).max()),
                "kl": float(abs(found[name].divergences.mean(axis=1)).max()),
            }
            for name in (EQUAL, SHIFTED)
        },
        "ratios": {
            name: [mean[name] / mean[f"{name} {seed}"] for seed in range(SEEDS)]
            for name in _pairs(width)
        },
    }


def _empty(
    model: Model, tokens: int, keys: list[Codec], values: list[Codec], batch_size: int
) -> QuantizedKVCache:
    return QuantizedKVCache(model, batch_size, tokens, keys, values)


@torch.inference_mode()
def key_spreads(model: Model, windows: Windows) -> list[float]:
    """Standard deviation of each layer's keys, as a cache encodes them."""
    text = windows.inputs.to(next(model.parameters()).device)
    codec = Plain(model.config.d_head, torch.float32)
    cache = QuantizedKVCache(model, len(text), text.shape[1], codec)
    model(text, cache)
    return [float(keys.parts[0][0].std()) for (keys,) in cache.stores]
