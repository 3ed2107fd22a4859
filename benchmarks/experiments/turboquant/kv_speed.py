"""L5, by the clock and by the system's account: what a compressed cache costs, and frees.

One process is one observation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.instruments.clock import interleaved_durations
from benchmarks.instruments.filling import PIECE, fill
from benchmarks.instruments.memory import cache_bytes_held, held_rss
from benchmarks.instruments.readings import Reading
from benchmarks.judging.stats import geometric_mean_ratio_interval, mean_interval
from benchmarks.record.results import Direction, Measurement, measured
from benchmarks.subjects.built import Model
from reference_model.cache import KVCache
from reference_model.config import preset
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant

CONTEXT = 1024  # tokens
BITS = (2, 3, 4)
ROUNDS = 12
SHAPE = (12, 12, CONTEXT, 64)  # GPT-2 small's keys, all layers: what encoding is timed on
CACHES = ("plain", "turboquant")


def sample(name: str) -> dict[str, Any]:
    """What one process measures, and its threads."""
    return {"threads": torch.get_num_threads(), **SAMPLES[name]()}


def measurements(
    claim: str, samples: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Iterator[Measurement]:
    """Of the samples of each name; nothing of a name that has none."""
    yield from _resident(claim, [s["freed"] for s in samples["resident"] if "freed" in s])
    record = partial(measured, claim=claim, choice="cache format", source="clock")
    better: Direction
    for function, metric, unit, better in (
        ("decoding", "speed_over_uncompressed", "ratio", "higher"),
        ("copies", "copies", "copies of the tensor", "lower"),
    ):
        of_processes = samples[function]
        for name in of_processes[0] if of_processes else ():
            if name == "threads":
                continue
            option, _, bits = name.partition(" ")
            threads = of_processes[0]["threads"]
            yield record(
                geometric_mean_ratio_interval([sample[name] for sample in of_processes]),
                metric=metric,
                unit=unit,
                direction=better,
                option=option,
                parameters={"bits": int(bits), "tokens": CONTEXT, "threads": threads},
            )


def decoding_ratios() -> dict[str, float]:
    """Seconds of a token after 1,023 others with the plain cache, over those with 2, 3, 4 bits."""
    model = Model(preset("gpt2")).eval()
    caches = {"plain": KVCache(model.config, 1, CONTEXT)} | {
        f"turboquant {bits}": QuantizedKVCache(model, 1, CONTEXT, TurboQuant(64, bits))
        for bits in BITS
    }
    token = torch.zeros(1, 1, dtype=torch.int64)
    with torch.inference_mode():
        for cache in caches.values():
            fill(cache, model, CONTEXT - 1)
        steps = {name: partial(_step, model, token, cache) for name, cache in caches.items()}
        seconds = interleaved_durations(steps, ROUNDS, warmup=2)
    medians = {name: statistics.median(samples) for name, samples in seconds.items()}
    plain = medians.pop("plain")
    return {name: plain / median for name, median in medians.items()}


def _step(model: Model, token: torch.Tensor, cache: KVCache) -> None:
    cache.forget(CONTEXT - 1)  # each call is the first after the same past
    model(token, cache, last_only=True)


def copy_ratios() -> dict[str, float]:
    """Seconds to encode and to decode all keys, over those of a warm copy of the same tensor."""
    x = torch.randn(SHAPE)
    into = torch.empty_like(x)
    arms: dict[str, Callable[[], object]] = {"copy": lambda: into.copy_(x)}
    with torch.inference_mode():
        for bits in BITS:
            codec = TurboQuant(64, bits)
            arms[f"encode {bits}"] = partial(codec.encode, x)
            arms[f"decode {bits}"] = partial(codec.decode, codec.encode(x))
        seconds = interleaved_durations(arms, ROUNDS)
    medians = {name: statistics.median(samples) for name, samples in seconds.items()}
    copy = medians.pop("copy")
    return {name: median / copy for name, median in medians.items()}


def freed() -> dict[str, float]:
    """Bytes that the plain cache holds more than the one of 3 bits; empty where nobody tells."""
    readings = [
        held_rss(f"{__name__}:filled", {"name": name}, threads=1)
        for name in ("plain", "turboquant")
    ]
    values = [reading.value for reading in readings if isinstance(reading, Reading)]
    return {"freed": values[0] - values[1]} if len(values) == 2 else {}


# Name → what one process measures.
SAMPLES: dict[str, Callable[[], dict[str, float]]] = {
    "resident": freed,
    "decoding": decoding_ratios,
    "copies": copy_ratios,
}


def _resident(claim: str, found: Sequence[float]) -> Iterator[Measurement]:
    """What is freed by the buffers, and what the system says beyond that."""
    if not found:
        return
    plain, turboquant = (cache_bytes_held(empty(name))["reserved"].value for name in CACHES)
    record = partial(
        measured,
        claim=claim,
        unit="bytes",
        direction="none",
        choice="cache format",
        option="turboquant",
    )
    difference = plain - turboquant
    labels = {"bits": 3, "tokens": CONTEXT}
    yield record(difference, metric="bytes_freed", parameters=labels, source="buffers")
    yield record(
        mean_interval([each - difference for each in found]),
        metric="resident_bytes_freed_beyond_buffers",
        parameters=labels,
        source="RSS of fresh processes",
    )


def empty(name: str) -> KVCache:
    """The plain cache of GPT-2 small's shapes, or the one of 3 bits."""
    config = preset("gpt2", vocab_size=8)
    if name == "plain":
        return KVCache(config, 1, CONTEXT)
    return QuantizedKVCache(Model(config), 1, CONTEXT, TurboQuant(64, 3))


def filled(name: str) -> Any:
    """A full cache; of either kind beside the same model, whose bytes are not the cache's."""
    model = Model(preset("gpt2", vocab_size=8))
    codec = TurboQuant(64, 3)
    # Libraries' code that encoding is the first to use is resident in both processes, then.
    with torch.inference_mode():
        codec.encode(torch.randn(1, model.config.n_head, PIECE, model.config.d_head))
    plain = KVCache(model.config, 1, CONTEXT) if name == "plain" else None
    cache = plain or QuantizedKVCache(model, 1, CONTEXT, codec)
    with torch.inference_mode():
        fill(cache, model, CONTEXT)
    return model, cache
