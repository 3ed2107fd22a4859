"""L5: what the bit for the residual does to inner products, and to attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from benchmarks.experiment import Profile, Settings, experiment
from benchmarks.experiments.turboquant import PACKED, PROJECTIONS, SEEDS, unit_vectors
from benchmarks.instruments.cache_quality import attention_errors
from benchmarks.instruments.texts import play_windows
from benchmarks.results import Measurement, Parameter, measured
from benchmarks.stats import exponential, mean_interval
from reference_model.checkpoints import load_reference
from reference_model.model import GPT
from reference_model.quantization.codec import Codec
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import Projection, TurboQuant, TurboQuantProd

# Windows whose attention is probed, spread over all test plays.
PROBED_WINDOWS: dict[Profile, int] = {"quick": 4, "full": 20}


@experiment("turboquant.unbiased", smoke=None, quick=17, full=300)
def unbiased(settings: Settings) -> list[Measurement]:
    """Slope of estimated inner products, and what the residual's bit does to attention.

    ``attention_kl_ratio``: divergence of the attention weights with the residual's bit, over that
    with this bit spent on the codebook; above 1 it does harm. Prod holds one scale more.
    """
    record = partial(measured, claim="turboquant.unbiased", choice="cache format")
    found = []
    x = unit_vectors(4000, 64, settings.seed)
    for bits in PACKED:
        for option, build in _ways(bits).items():
            slopes = []
            for seed in range(4 * SEEDS):  # each rotation and projection has a bias of its own
                codec = build(seed)
                slopes.append(float((codec.decode(codec.encode(x)) * x).sum(-1).mean()))
            name, _, projection = option.partition(", ")
            labels: dict[str, Parameter] = {"bits": bits, "width": 64}
            if projection:
                labels["projection"] = projection
            found.append(
                record(
                    mean_interval(slopes),
                    metric="inner_product_slope",
                    unit="1",
                    direction="none",
                    option=name,
                    parameters=labels,
                    source="simulation",
                )
            )
    return [*found, *_attention(settings, record)]


def _ways(bits: int) -> dict[str, Callable[[int], Codec]]:
    def prod(projection: Projection) -> Callable[[int], Codec]:
        return lambda seed: TurboQuantProd(64, bits, projection=projection, seed=seed)

    return {
        "turboquant": lambda seed: TurboQuant(64, bits, seed=seed),
        **{f"prod, {projection}": prod(projection) for projection in PROJECTIONS},
    }


def empty_cache(model: GPT, codec: Codec, batch_size: int) -> QuantizedKVCache:
    return QuantizedKVCache(model, batch_size, model.config.context_length, codec)


def _attention(settings: Settings, record: Callable[..., Measurement]) -> Iterator[Measurement]:
    model = load_reference().to(settings.device)
    context, count = model.config.context_length, PROBED_WINDOWS[settings.profile]
    windows = play_windows("test", context, count, settings.seed)
    ways = {(bits, option): build for bits in PACKED for option, build in _ways(bits).items()}
    divergences: dict[tuple[int, str], list[list[float]]] = {way: [] for way in ways}
    errors: dict[tuple[int, str], list[list[float]]] = {way: [] for way in ways}
    for seed in range(SEEDS):
        caches = {
            f"{bits} {option}": partial(empty_cache, model, build(seed))
            for (bits, option), build in ways.items()
        }
        probed = attention_errors(model, windows, caches)
        for bits, option in ways:
            divergences[bits, option].append(probed[f"{bits} {option}"].divergences)
            errors[bits, option].append(probed[f"{bits} {option}"].output_errors)
    for bits, option in ways:
        name, _, projection = option.partition(", ")
        labels: dict[str, Parameter] = {"bits": bits, "seeds": SEEDS}
        if projection:
            labels["projection"] = projection
        of_way = partial(
            record, option=name, direction="lower", parameters=labels, source="checkpoint"
        )
        for metric, unit, table in (
            ("attention_kl", "nats", divergences[bits, option]),
            ("attention_output_error", "of ‖y‖²", errors[bits, option]),
        ):
            yield of_way(windows.crossed_mean(table), metric=metric, unit=unit)
        if projection:
            # (seeds, windows); the mean and its interval of their logs.
            logs = np.log(divergences[bits, option]) - np.log(divergences[bits, "turboquant"])
            yield of_way(
                exponential(windows.crossed_mean(logs)), metric="attention_kl_ratio", unit="ratio"
            )
