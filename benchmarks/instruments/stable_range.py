"""The largest learning rate at which a small model still trains, by placement, depth and warm-up.

With clipped gradients nothing becomes a NaN: what fails stays where single tokens are. So a rate
is stable where the held-out loss ends 0.2 nats or more below their entropy, after a fixed number of
tokens; after more of them the border lies elsewhere.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from benchmarks.experiments.experiment import Found, Settings
from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.trained_models import (
    MARGIN,
    STEP_TOKENS,
    batches_of,
    config_of,
    held_out,
    unigram_entropy,
)
from benchmarks.instruments.windows import Windows, spread
from benchmarks.subjects.built import Model
from reference_model.training import Recipe, Training

WIDTH, HEADS = 64, 2
STEPS = {4: 322, 12: 488}  # by depth: 330,000 and 500,000 tokens
RATES = tuple(2.0**power for power in range(-13, -1))  # 0.00012 to 0.25
WINDOWS = 256  # of held-out text, 32,768 tokens


def measure(settings: Settings, option: str, depth: int, warmup: int, seed: int) -> Found:
    """What a cell finds.

    ``largest``: the largest stable rate, by bisection of RATES; half of the smallest where none is.
    ``tried``: rate and held-out loss of each run, in nats per token; None where it diverged.
    """
    tried: dict[float, float] = {}

    def loss(rate: float) -> float:
        if rate not in tried:
            tried[rate] = loss_at(settings, option, depth, warmup, seed, rate)
        return tried[rate]

    largest = largest_stable(loss, unigram_entropy() - MARGIN)
    told = [[rate, each if math.isfinite(each) else None] for rate, each in sorted(tried.items())]
    return {"largest": largest, "tried": told}


def largest_stable(loss: Callable[[float], float], border: float) -> float:
    """Of RATES, the largest whose loss is at the border or below; half of the smallest: none is.

    By bisection, as if all below a stable one were stable. Where that finds none, the small ones
    may be too slow rather than too large: they are tried upwards for as long as the loss falls.
    """
    least, most = 0, len(RATES)  # so many are stable at least, and at most
    while least < most:
        middle = (least + most) // 2
        least, most = (middle + 1, most) if loss(RATES[middle]) <= border else (least, middle)
    if least:
        return RATES[least - 1]
    largest, before = RATES[0] / 2, math.inf
    for rate in RATES:
        if loss(rate) <= border:
            largest = rate
        elif loss(rate) >= before:
            break
        before = loss(rate)
    return largest


def loss_at(
    settings: Settings, option: str, depth: int, warmup: int, seed: int, rate: float
) -> float:
    """Held-out nats per token after a run at a constant rate; infinite where it diverged."""
    config = config_of(option).replace(n_layer=depth, n_embd=WIDTH, n_head=HEADS)
    model = Model(config).to(settings.device)
    model.initialize_by_name(seed)
    recipe = Recipe(STEPS[depth], rate, warmup_steps=warmup, decay_steps=0, seed=seed)
    training = Training(model, batches_of(seed), recipe)
    if not all(map(math.isfinite, training.losses())):
        return math.inf
    try:
        return float(token_losses(model, some_held_out()).mean())
    except ValueError:  # the last step was the one
        return math.inf


@functools.cache
def some_held_out() -> Windows:
    """Enough of it to tell 0.2 nats."""
    return spread(held_out(), WINDOWS, seed=0)


def tokens_of(depth: int) -> int:
    """Of a run."""
    return STEPS[depth] * STEP_TOKENS
