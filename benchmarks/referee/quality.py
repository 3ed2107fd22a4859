"""What a format does to a model's predictions, and to the texts that the model writes.

Everything is paired: each cache reads the windows that the model reads without one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.experiments.experiment import Found
from benchmarks.instruments.cache_quality import qualities
from benchmarks.instruments.windows import Windows
from benchmarks.judging.stats import Estimate
from reference_model.generate import generate

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model
    from reference_model.quantization.kv_cache import QuantizedKVCache

Array = NDArray[np.float64]
Caches = Mapping[str, Callable[[int], "QuantizedKVCache"]]  # by seed

DEPTHS = 8  # equal parts of a window
TAIL = 0.99
RESAMPLES = 400
TEXTS, PROMPT = 16, 128  # that a model writes, and tokens that each begins with
NEW_TOKENS = 64  # of each text


def predictions(model: Model, windows: Windows, caches: Caches, batch_size: int) -> Found:
    """Losses, KL and agreement: means of each window through each seed's cache (seeds, windows).

    ``baseline`` (windows,) are the losses without a cache; ``by_depth`` (depths, seeds, windows)
    KL at each part of a window; ``p99`` its 99th percentile over tokens.
    """
    baseline, found = qualities(model, windows, caches, batch_size)
    divergences = np.stack([found[seed].divergences for seed in caches])  # (seeds, windows, T)
    parts = np.array_split(divergences, DEPTHS, axis=-1)
    tail = percentile(divergences, TAIL, windows.stretches)
    return {
        "baseline": baseline.mean(axis=1).tolist(),
        "losses": [found[seed].losses.mean(axis=1).tolist() for seed in caches],
        "divergences": divergences.mean(axis=-1).tolist(),
        "agreements": [found[seed].agreements.mean(axis=1).tolist() for seed in caches],
        "by_depth": [part.mean(axis=-1).tolist() for part in parts],
        "p99": [tail.value, *tail.interval, tail.n],
    }


def percentile(values: Array, share: float, stretches: NDArray[np.int64]) -> Estimate:
    """Over tokens of ``values`` (seeds, windows, T), all seeds together.

    The interval is Efron's bootstrap: seeds and stretches of text are drawn with replacement, each
    from its own kind, since both scatter. ``n`` counts the fewer; a single seed is not drawn.
    """
    seeds, windows, tokens = values.shape
    _, which = np.unique(stretches, return_inverse=True)
    count = int(which.max()) + 1
    order = np.argsort(values, axis=None)
    ascending = values.ravel()[order]
    of_seed, of_window = np.divmod(order // tokens, windows)
    of_stretch = which[of_window]
    draws = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        of_seeds = np.bincount(draws.integers(seeds, size=seeds), minlength=seeds)
        of_stretches = np.bincount(draws.integers(count, size=count), minlength=count)
        weights = np.cumsum(of_seeds[of_seed] * of_stretches[of_stretch])
        found.append(ascending[np.searchsorted(weights, share * weights[-1])])
    low, high = np.percentile(found, (2.5, 97.5))
    n = min(seeds, count) if seeds > 1 else count
    return Estimate(float(np.quantile(values, share)), (float(low), float(high)), n)


@torch.inference_mode()
def greedy_texts(model: Model, windows: Windows, caches: Caches, room: int) -> Found:
    """Texts that the model writes by itself, beside those that it writes without compression.

    ``until`` (seeds, texts): the share of new tokens before the first that differs; ``windows``
    are those that the prompts begin. A cache has ``room`` for so many tokens.
    """
    device = next(model.parameters()).device
    chosen = np.arange(min(len(windows), TEXTS))
    prompt = windows[chosen].inputs[:, :PROMPT].to(device)
    new_tokens = min(NEW_TOKENS, room - PROMPT)
    expected = generate(model, prompt, new_tokens)
    until = []
    for make in caches.values():
        found = generate(model, prompt, new_tokens, cache=make(len(prompt)))
        same = (found == expected)[:, -new_tokens:].cumprod(dim=1)
        until.append(same.double().mean(dim=1).tolist())
    return {"until": until, "windows": chosen.tolist()}
