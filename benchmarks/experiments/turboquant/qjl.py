"""L5: what the bit for the residual does to inner products, and to attention."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    as_found,
    experiment_of_cells,
    joined,
)
from benchmarks.experiments.turboquant.lesson import PROJECTIONS, SEEDS, decoded, unit_vectors
from benchmarks.experiments.turboquant.memory import PACKED
from benchmarks.instruments.cache_quality import attention_errors
from benchmarks.instruments.windows import Windows
from benchmarks.judging.stats import exponential, mean_interval
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from benchmarks.subjects.subject import subject_of
from reference_model.quantization.codec import Codec
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import Projection, TurboQuant, TurboQuantProd

# Windows whose attention is probed, spread over all test plays.
PROBED_WINDOWS: dict[Profile, int] = {"quick": 4, "full": 20}
VECTORS = 4000  # of which inner products are estimated


def cells(settings: Settings) -> list[Cell]:
    """Inner products, and the attention of each seed."""
    return [Cell({"part": "slopes"}, share=2)] + [
        Cell({"part": "attention", "seed": seed}, share=3) for seed in range(SEEDS)
    ]


def of_a_cell(settings: Settings, part: str, seed: int = 0) -> Found:
    return as_found(_slopes(settings)) if part == "slopes" else attention_of(settings, seed)


@experiment_of_cells(
    "turboquant.unbiased",
    cells=cells,
    measure=of_a_cell,
    smoke=None,
    quick=17,
    full=300,
    of_any_model=True,
)
def unbiased(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Slope of estimated inner products, and what the residual's bit does to attention.

    ``attention_kl_ratio``: divergence of the attention weights with the residual's bit, over that
    with this bit spent on the codebook; above 1 it does harm. Prod holds one scale more.
    """
    attention = _attention(settings, [of_seed for _, of_seed in found[1:]])
    return joined(settings, found[:1]) + list(attention)


record = partial(measured, claim="turboquant.unbiased", choice="cache format")


def _slopes(settings: Settings) -> Iterator[Measurement]:
    width = subject_of(settings).config.d_head
    x = unit_vectors(VECTORS, width, settings.seed)
    for bits in PACKED:
        for option, build in _ways(width, bits).items():
            slopes = []
            for seed in range(4 * SEEDS):  # each rotation and projection has a bias of its own
                codec = build(seed)
                slopes.append(float((decoded(codec, x, settings.device) * x).sum(-1).mean()))
            name, _, projection = option.partition(", ")
            labels: dict[str, Parameter] = {"bits": bits, "width": width}
            if projection:
                labels["projection"] = projection
            yield record(
                mean_interval(slopes),
                metric="inner_product_slope",
                unit="1",
                direction="none",
                option=name,
                parameters=labels,
                source="simulation",
            )


def _ways(width: int, bits: int) -> dict[str, Callable[[int], Codec]]:
    def prod(projection: Projection) -> Callable[[int], Codec]:
        return lambda seed: TurboQuantProd(width, bits, projection=projection, seed=seed)

    return {
        "turboquant": lambda seed: TurboQuant(width, bits, seed=seed),
        **{f"prod, {projection}": prod(projection) for projection in PROJECTIONS},
    }


def empty_cache(model: Model, capacity: int, codec: Codec, batch_size: int) -> QuantizedKVCache:
    return QuantizedKVCache(model, batch_size, capacity, codec)


def text_of(settings: Settings) -> Windows:
    return subject_of(settings).windows(PROBED_WINDOWS[settings.profile], settings.seed)


def attention_of(settings: Settings, seed: int) -> Found:
    """Of one seed "bits option" → what is wrong with attention, window by window."""
    subject = subject_of(settings)
    model, width = subject.model(), subject.config.d_head
    caches = {
        f"{bits} {option}": partial(empty_cache, model, subject.window, build(seed))
        for bits in PACKED
        for option, build in _ways(width, bits).items()
    }
    return {k: vars(v) for k, v in attention_errors(model, text_of(settings), caches).items()}


def _attention(settings: Settings, found: Sequence[Found]) -> Iterator[Measurement]:
    windows, width = text_of(settings), subject_of(settings).config.d_head
    ways = [(bits, option) for bits in PACKED for option in _ways(width, bits)]
    divergences, errors = (
        {
            (bits, option): [of_seed[f"{bits} {option}"][name] for of_seed in found]
            for bits, option in ways
        }
        for name in ("divergences", "output_errors")
    )  # (seeds, windows) each
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
