"""What one process measures of compressed caches: results by metric and bits.

Each is beside the uncompressed cache in float32, and takes turns with it in the same process.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.experiments.cache.speed import config_of
from benchmarks.experiments.experiment import Settings, Unavailable
from benchmarks.instruments.clock import interleaved_durations
from benchmarks.instruments.filling import fill, fill_by_repeating
from benchmarks.instruments.memory import page_faults, peak_rss
from benchmarks.instruments.readings import Unavailable as NoReading
from benchmarks.subjects.built import Model
from reference_model.cache import KVCache
from reference_model.costs import read_weight_bytes, weight_bytes
from reference_model.generate import generate
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.turboquant import TurboQuant

UNCOMPRESSED, HALF = 32, 16  # bits of float32 and of bfloat16
PACKED = (2, 3, 4)  # TurboQuant's
BITS = (UNCOMPRESSED, HALF, *PACKED)
CLAIMED = 3
ROUNDS = 12  # turns of each cache in one process
STEPS = 64  # after a prefill whose peak is read
BATCH = 8  # sequences at once, where it is not one

Sample = dict[str, dict[int, float]]  # metric → bits → number


def model_of(settings: Settings, tokens: int, grouped: bool = False) -> Model:
    """In float32 and of random weights, with a context of so many tokens.

    ``grouped``: with a quarter of its heads of keys and values, or fewer where queries do not fit.
    """
    config = config_of(settings).replace(context_length=tokens)
    if grouped:
        most = max(1, config.n_kv_head // 4)
        fewer = max(heads for heads in range(1, most + 1) if config.n_head % heads == 0)
        config = config.replace(n_kv_head=fewer)
    return Model(config).eval()


def cache_of(model: Model, bits: int, capacity: int, batch_size: int = 1) -> KVCache:
    """Uncompressed in float32 or bfloat16, or TurboQuant's; on the device of the model."""
    if bits in (UNCOMPRESSED, HALF):
        dtype = torch.float32 if bits == UNCOMPRESSED else torch.bfloat16
        return KVCache(model.config, batch_size, capacity, dtype, model.wte.weight.device)
    return QuantizedKVCache(model, batch_size, capacity, TurboQuant(model.config.d_head, bits))


def step(settings: Settings, tokens: int, batch: int = 1, grouped: bool = False) -> Sample:
    """The token after so many others, of each of a batch, over each cache in turns."""
    model = model_of(settings, tokens + 1, grouped)
    caches = {bits: cache_of(model, bits, tokens + 1, batch) for bits in BITS}
    faults: dict[int, list[int]] = {bits: [] for bits in BITS}
    token = torch.zeros(batch, 1, dtype=torch.int64)

    def one(bits: int) -> None:
        before = page_faults()
        caches[bits].forget(tokens)  # each call is the first after the same past
        model(token, caches[bits], last_only=True)
        faults[bits].append(page_faults() - before)

    for cache in caches.values():
        if batch > 1 and isinstance(cache, QuantizedKVCache):
            fill_by_repeating(cache, model, tokens)  # encoding all of them would take minutes
        else:
            fill(cache, model, tokens)
    nbytes = {bits: cache.nbytes_used for bits, cache in caches.items()}
    rounds = ROUNDS if batch == 1 else math.ceil(ROUNDS / 3)
    seconds = _medians({bits: partial(one, bits) for bits in BITS}, rounds, warmup=2)
    weights = read_weight_bytes(model.config)
    return {
        "speed_over_uncompressed": _over_each(seconds),
        "speed_by_bytes": _over_each({bits: weights + held for bits, held in nbytes.items()}),
        "step_seconds": seconds,
        "page_faults": {bits: statistics.median(counts) for bits, counts in faults.items()},
    }


def encoding(settings: Settings, tokens: int) -> Sample:
    """Keys of all layers, encoded; over a copy of them into a buffer that is mapped already."""
    config = config_of(settings)
    x = torch.randn(config.n_layer, config.n_kv_head, tokens, config.d_head)
    into = x.clone()
    arms: dict[int, Callable[[], object]] = {UNCOMPRESSED: lambda: into.copy_(x)}
    for bits in PACKED:
        codec = TurboQuant(config.d_head, bits)
        arms[bits] = partial(codec.encode, x, into=codec.encode(x))  # mapped already as well
    seconds = _medians(arms, ROUNDS, warmup=2)
    copy = seconds.pop(UNCOMPRESSED)
    return {"encoding": {bits: taken / copy for bits, taken in seconds.items()}}


def prefill(settings: Settings, tokens: int) -> Sample:
    """A prompt into a new cache, which is part of what a prefill costs; caches take turns."""
    model = model_of(settings, tokens)
    prompt = torch.zeros(1, tokens, dtype=torch.int64)

    def one(bits: int, prompt: Tensor) -> None:
        model(prompt, cache_of(model, bits, tokens), last_only=True)

    for bits in (UNCOMPRESSED, CLAIMED):  # warm up
        one(bits, prompt[:, :64])
    arms = {bits: partial(one, bits, prompt) for bits in (UNCOMPRESSED, CLAIMED)}
    return {"prefill_speed_over_uncompressed": _over_each(_medians(arms, rounds=2, warmup=0))}


def peak(settings: Settings, tokens: int) -> Sample:
    """A prefill and some steps, each cache in a process of its own."""
    weights = weight_bytes(config_of(settings).replace(context_length=tokens + STEPS + 1))
    held: dict[int, float] = {}
    for bits in (UNCOMPRESSED, CLAIMED):
        given = {"settings": asdict(settings), "bits": bits, "tokens": tokens}
        read = peak_rss(f"{__name__}:generated", given, torch.get_num_threads())["increase"]
        if isinstance(read, NoReading):
            raise Unavailable(read.reason)
        held[bits] = read.value - weights
    return {"peak_over_uncompressed": {CLAIMED: held[CLAIMED] / held[UNCOMPRESSED]}}


@torch.inference_mode()
def generated(settings: dict[str, Any], bits: int, tokens: int) -> None:
    """What a process of its own does."""
    model = model_of(Settings(**settings), tokens + STEPS + 1)
    cache = cache_of(model, bits, tokens + STEPS)
    generate(model, torch.zeros(1, tokens, dtype=torch.int64), STEPS + 1, cache=cache)


# Part → what measures it.
PARTS: dict[str, Callable[[Settings, int], Sample]] = {
    "step": step,
    "grouped step": partial(step, grouped=True),
    "batched step": partial(step, batch=BATCH),
    "encoding": encoding,
    "prefill": prefill,
    "peak": peak,
}


def _medians(
    arms: Mapping[int, Callable[[], object]], rounds: int, warmup: int
) -> dict[int, float]:
    seconds = interleaved_durations({str(bits): arm for bits, arm in arms.items()}, rounds, warmup)
    return {int(bits): statistics.median(taken) for bits, taken in seconds.items()}


def _over_each(numbers: Mapping[int, float]) -> dict[int, float]:
    """The uncompressed cache's number over that of each other."""
    return {b: numbers[UNCOMPRESSED] / n for b, n in numbers.items() if b != UNCOMPRESSED}
