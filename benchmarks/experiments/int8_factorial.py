"""L6: INT8 weights and a compressed KV cache together: do their losses add?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from benchmarks.experiment import Profile, Settings
from benchmarks.instruments.cache_quality import Array, qualities
from benchmarks.instruments.texts import play_windows
from benchmarks.instruments.windows import Windows
from benchmarks.results import Measurement, measured
from benchmarks.stats import Estimate
from reference_model.cache import KVCache
from reference_model.checkpoints import load_reference
from reference_model.model import GPT
from reference_model.quantization.grid import Grid
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.norms import NormScheme, with_int8_norms
from reference_model.quantization.rounding import with_rounded_linears
from reference_model.quantization.turboquant import TurboQuant

BITS = (4, 3, 2)
FLOAT, NO_CACHE = "float32 weights", "uncompressed"
# Windows that are read, spread over all test plays.
WINDOWS: dict[Profile, int] = {"smoke": 20, "quick": 20, "full": 72}

Cell = tuple[str, str]  # weights, cache


def factorial(settings: Settings) -> list[Measurement]:
    """Each kind of weights with each cache; of TurboQuant one rotation, the same in every cell."""
    model = load_reference().to(settings.device)
    length, count = model.config.context_length, WINDOWS[settings.profile]
    windows = play_windows("test", length, count, settings.seed)
    losses: dict[Cell, Array] = {}
    for weights, variant in _weights(model).items():
        caches = {f"{bits} bits": partial(_empty, variant, bits) for bits in BITS}
        plain, through = qualities(variant, windows, caches)
        losses[weights, NO_CACHE] = plain
        losses |= {(weights, cache): quality.losses for cache, quality in through.items()}
    return list(measurements(losses, windows))


def _weights(model: GPT) -> dict[str, GPT]:
    rounded, _ = with_rounded_linears(model, Grid())
    scheme = NormScheme(weights="int8", input="int8")
    normed, _ = with_int8_norms(rounded, scheme)
    assert isinstance(normed, GPT)
    return {FLOAT: model, "INT8, norms skipped": rounded, "INT8, norms too": normed}


def _empty(model: GPT, bits: int, batch_size: int) -> KVCache:
    codec = TurboQuant(model.config.d_head, bits)
    return QuantizedKVCache(model, batch_size, model.config.context_length, codec)


def interaction(
    losses: Mapping[Cell, Array], windows: Windows, weights: str, cache: str
) -> Estimate:
    """L(both) − L(weights) − L(cache) + L(neither) per token: 0 where losses add.

    Of losses (windows, T) in nats.
    """
    with_weights = losses[weights, cache] - losses[weights, NO_CACHE]
    without = losses[FLOAT, cache] - losses[FLOAT, NO_CACHE]
    return windows.mean(with_weights - without)


def measurements(losses: Mapping[Cell, Array], windows: Windows) -> Iterator[Measurement]:
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
        if (weights, cache) != (FLOAT, NO_CACHE):
            increase = windows.mean(losses[weights, cache] - losses[FLOAT, NO_CACHE])
            yield record(increase, metric="factorial_loss_increase", direction="lower")
        if weights != FLOAT and cache != NO_CACHE:
            both = interaction(losses, windows, weights, cache)
            yield record(both, metric="interaction", direction="none")
