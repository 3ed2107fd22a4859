"""What a format costs in time and in memory: a step after so many tokens, and the peak of a prompt.

The model has the subject's shape and random weights: what they are does not matter to how long it
takes. One process is one observation.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.experiments.experiment import Found, Settings, Unavailable
from benchmarks.instruments.clock import interleaved_durations
from benchmarks.instruments.filling import fill, fill_by_repeating
from benchmarks.instruments.memory import peak_rss
from benchmarks.instruments.readings import Unavailable as NoReading
from benchmarks.referee.rows import Row
from benchmarks.subjects.built import Model
from benchmarks.subjects.subject import subject_of
from reference_model.cache import KVCache
from reference_model.costs import weight_bytes
from reference_model.generate import generate
from reference_model.quantization.calibration import Calibration, calibrate
from reference_model.quantization.kv_cache import QuantizedKVCache

LENGTHS = (1024, 4096, 16_384)  # tokens that a cache holds before a step
ROUNDS = 3  # turns of each cache in one process
PROMPT, STEPS = 1024, 8  # tokens of which the peak is read
CALIBRATED = 256  # random tokens
UNCOMPRESSED = "float32"


def model_of(settings: Settings, tokens: int) -> Model:
    """In float32, with a context of so many tokens."""
    return Model(subject_of(settings).config.replace(context_length=tokens)).eval()


def cache_of(model: Model, row: Row | None, capacity: int) -> KVCache:
    """None: the uncompressed cache."""
    if row is None:
        return KVCache(model.config, 1, capacity)
    make = next(row.caches(model, capacity, calibration_of(model) if row.of.calibrated else None))
    return make(1)


def calibration_of(model: Model) -> list[Calibration]:
    """By random tokens: of random weights no text says more."""
    length = min(CALIBRATED, model.config.context_length)
    return calibrate(model, [torch.randint(model.config.vocab_size, (1, length))])


def steps(settings: Settings, row: Row) -> Found:
    """By length the seconds of a step over the uncompressed cache, and over the row's, in turns."""
    model = model_of(settings, max(LENGTHS) + 1)
    token = torch.zeros(1, 1, dtype=torch.int64)
    found = {}
    with torch.inference_mode():
        for tokens in LENGTHS:
            arms: dict[str, Callable[[], object]] = {}
            for name, each in ((UNCOMPRESSED, None), (row.format, row)):
                cache = cache_of(model, each, tokens + 1)
                if isinstance(cache, QuantizedKVCache):
                    fill_by_repeating(cache, model, tokens)
                else:
                    fill(cache, model, tokens)
                arms[name] = partial(_step, model, cache, token, tokens)
            seconds = interleaved_durations(arms, ROUNDS)
            found[str(tokens)] = [statistics.median(seconds[name]) for name in arms]
    return found


def _step(model: Model, cache: KVCache, token: torch.Tensor, tokens: int) -> None:
    cache.forget(tokens)  # each call is the first after the same past
    model(token, cache, last_only=True)


def peak(settings: Settings, row: Row | None) -> float:
    """Most bytes that a process of its own held, above its weights, for a prompt and some steps."""
    weights = weight_bytes(subject_of(settings).config.replace(context_length=PROMPT + STEPS))
    given = {"settings": vars(settings), "row": row.parameters if row else None}
    read = peak_rss(f"{__name__}:generated", given, 1)["increase"]
    if isinstance(read, NoReading):
        raise Unavailable(read.reason)
    return read.value - weights


@torch.inference_mode()
def generated(settings: dict[str, Any], row: dict[str, Any] | None) -> None:
    """What that process does."""
    model = model_of(Settings(**settings), PROMPT + STEPS)
    cache = cache_of(model, None if row is None else Row(**row), PROMPT + STEPS)
    generate(model, torch.zeros(1, PROMPT, dtype=torch.int64), STEPS, cache=cache)
