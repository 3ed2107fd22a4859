"""L6: INT8 weights and a compressed KV cache together: do their losses add?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from benchmarks.experiments.experiment import Found, Profile, Settings
from benchmarks.instruments.cache_quality import Array, qualities
from benchmarks.instruments.windows import Windows
from benchmarks.judging.stats import Estimate
from benchmarks.record.results import Measurement, measured
from benchmarks.subjects.built import Model
from benchmarks.subjects.subject import subject_of
from reference_model.cache import KVCache
from reference_model.quantization.grid import Grid
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.norms import NormScheme, with_int8_norms
from reference_model.quantization.rounding import with_rounded_linears
from reference_model.quantization.turboquant import TurboQuant

BITS = (4, 3, 2)
FLOAT = "float32 weights"  # as they are, in a run in float32
SKIPPED, NORMS_TOO = "INT8, norms skipped", "INT8, norms too"
NO_CACHE = "uncompressed"
# Windows that are read, spread over all test plays.
WINDOWS: dict[Profile, int] = {"smoke": 20, "quick": 20, "full": 72}

Pair = tuple[str, str]  # weights, cache


def kinds_of_weights(settings: Settings) -> tuple[str, str, str]:
    """As they are, by the run's dtype, and rounded in two ways."""
    return f"{settings.dtype} weights", SKIPPED, NORMS_TOO


def losses_of(settings: Settings, weights: str) -> Found:
    """Cache → loss of each window, (windows,) nats a token, with one kind of weights.

    Of TurboQuant one rotation, the same for each.
    """
    variant = _with_weights(subject_of(settings).model(), weights)
    windows = text_of(settings)
    capacity = windows.inputs.shape[1]
    caches = {f"{bits} bits": partial(_empty, variant, capacity, bits) for bits in BITS}
    plain, through = qualities(variant, windows, caches)
    losses = {NO_CACHE: plain, **{cache: quality.losses for cache, quality in through.items()}}
    return {cache: of_cache.mean(axis=1).tolist() for cache, of_cache in losses.items()}


def factorial(settings: Settings, found: Mapping[str, Found]) -> list[Measurement]:
    """Each kind of weights with each cache, of what `losses_of` found for all of them."""
    losses = {
        (weights, cache): np.array(of_cache)
        for weights, of_weights in found.items()
        for cache, of_cache in of_weights.items()
    }
    plain, *_ = kinds_of_weights(settings)
    return list(measurements(losses, text_of(settings), plain))


def text_of(settings: Settings) -> Windows:
    return subject_of(settings).windows(WINDOWS[settings.profile], settings.seed)


def _with_weights(model: Model, weights: str) -> Model:
    if weights not in (SKIPPED, NORMS_TOO):
        return model
    rounded, _ = with_rounded_linears(model, Grid())
    if weights == SKIPPED:
        return rounded
    normed, _ = with_int8_norms(rounded, NormScheme(weights="int8", input="int8"))
    assert isinstance(normed, Model)
    return normed


def _empty(model: Model, capacity: int, bits: int, batch_size: int) -> KVCache:
    codec = TurboQuant(model.config.d_head, bits)
    return QuantizedKVCache(model, batch_size, capacity, codec)


def interaction(
    losses: Mapping[Pair, Array], windows: Windows, weights: str, cache: str, plain: str = FLOAT
) -> Estimate:
    """L(both) − L(weights) − L(cache) + L(neither) per token: 0 where losses add.

    Of losses in nats, (windows,) or of each of their tokens. ``plain``: weights as they are.
    """
    with_weights = losses[weights, cache] - losses[weights, NO_CACHE]
    without = losses[plain, cache] - losses[plain, NO_CACHE]
    return windows.mean(with_weights - without)


def measurements(
    losses: Mapping[Pair, Array], windows: Windows, plain: str = FLOAT
) -> Iterator[Measurement]:
    """What each cell loses against no rounding at all, and what of it neither half explains."""
    for weights, cache in losses:
        record = partial(
            measured,
            claim="int8.weights-quality",
            unit="nats/token",
            choice="number format",
            option=weights,
            parameters={"cache": cache},
            source="checkpoint",
        )
        if (weights, cache) != (plain, NO_CACHE):
            increase = windows.mean(losses[weights, cache] - losses[plain, NO_CACHE])
            yield record(increase, metric="factorial_loss_increase", direction="lower")
        if weights != plain and cache != NO_CACHE:
            both = interaction(losses, windows, weights, cache, plain)
            yield record(both, metric="interaction", direction="none")
