"""L6: INT8 weights and a compressed KV cache together: do their losses add?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from benchmarks.experiment import Profile, Settings
from benchmarks.instruments.cache_quality import Array, qualities
from benchmarks.instruments.perplexity import loss_difference
from benchmarks.instruments.texts import reference_tokens
from benchmarks.results import Measurement, measured
from benchmarks.stats import Estimate, paired_difference_interval
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
# Windows of test text; None: all of it. A bootstrap wants twenty at least.
WINDOWS: dict[Profile, int | None] = {"smoke": 20, "quick": 20, "full": None}

Cell = tuple[str, str]  # weights, cache


def factorial(settings: Settings) -> list[Measurement]:
    """Each kind of weights with each cache; of TurboQuant one rotation, the same in every cell."""
    model = load_reference().to(settings.device)
    length, count = model.config.context_length, WINDOWS[settings.profile]
    tokens = reference_tokens("test")[: None if count is None else count * length + 1]
    losses: dict[Cell, Array] = {}
    for weights, variant in _weights(model).items():
        caches = {f"{bits} bits": partial(_empty, variant, bits) for bits in BITS}
        plain, through = qualities(variant, tokens, length, caches)
        losses[weights, NO_CACHE] = plain
        losses |= {(weights, cache): quality.losses for cache, quality in through.items()}
    return list(measurements(losses, settings.seed))


def _weights(model: GPT) -> dict[str, GPT]:
    rounded, _ = with_rounded_linears(model, Grid())
    scheme = NormScheme(weights="int8", input="int8")
    normed, _ = with_int8_norms(rounded, scheme)
    assert isinstance(normed, GPT)
    return {FLOAT: model, "INT8, norms skipped": rounded, "INT8, norms too": normed}


def _empty(model: GPT, bits: int, batch_size: int) -> KVCache:
    codec = TurboQuant(model.config.d_head, bits)
    return QuantizedKVCache(model, batch_size, model.config.context_length, codec)


def interaction(losses: Mapping[Cell, Array], weights: str, cache: str, seed: int = 0) -> Estimate:
    """L(both) − L(weights) − L(cache) + L(neither) per token: 0 where losses add.

    Of losses (windows, window) in nats, by a bootstrap over windows.
    """
    with_weights = losses[weights, cache] - losses[weights, NO_CACHE]
    without = losses[FLOAT, cache] - losses[FLOAT, NO_CACHE]
    return paired_difference_interval(with_weights, without, seed=seed)


def measurements(losses: Mapping[Cell, Array], seed: int) -> Iterator[Measurement]:
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
            increase = loss_difference(losses[weights, cache], losses[FLOAT, NO_CACHE], seed=seed)
            yield record(increase, metric="factorial_loss_increase", direction="lower")
        if weights != FLOAT and cache != NO_CACHE:
            both = interaction(losses, weights, cache, seed)
            yield record(both, metric="interaction", direction="none")
