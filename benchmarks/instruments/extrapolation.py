"""Losses beyond the length that a model was trained at, and what rescaled rotary positions save.

Only targets beyond that length count: the mean over a whole window hides them behind those that the
model was trained for. Each is also read at the trained length, from the tokens just before it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.windows import Windows
from benchmarks.subjects.built import Model
from reference_model.config import RopeScaling
from reference_model.training import Batches, Recipe, Training

Array = NDArray[np.float64]

RATIOS = (2, 4)  # of the trained length
PART = 32  # tokens of which `by_position` has the mean
SCALINGS: tuple[RopeScaling, ...] = ("none", "interpolation", "ntk")
# A short tuning at twice the length: a twentieth of what the models were trained on.
TUNED_RATIO, TUNED_STEPS, TUNED_RATE = 2, 100, 1e-3
AT_ONE = "at the trained length"


def beyond(
    model: Model,
    windows_at: Callable[[int], Windows],
    batches_at: Callable[[int], Batches],
    seed: int,
) -> dict[str, Any] | None:
    """Held-out nats per token by ratio and way, (windows,) each; None for learned positions.

    ``windows_at`` and ``batches_at`` give windows and batches of so many tokens. Ways are AT_ONE,
    "none", which is the model as it is, and of rotary positions each rescaling, by itself and
    "tuned". ``by_position``: means of PART targets each along the longest windows.
    """
    trained = model.config.context_length
    if model.config.position == "learned":
        return None
    scalings = SCALINGS if model.config.position == "rope" else SCALINGS[:1]
    by_ratio: dict[str, dict[str, list[float]]] = {}
    by_position: list[float] = []
    for ratio in RATIOS:
        windows = windows_at(ratio * trained)
        found = {AT_ONE: at_trained_length(model, windows, trained)}
        for scaling in scalings:
            losses = token_losses(rescaled(model, scaling, ratio), windows)
            found[scaling] = losses[:, trained:].mean(axis=1)
            if scaling == "none" and ratio == RATIOS[-1]:
                by_position = losses.mean(axis=0).reshape(-1, PART).mean(axis=1).tolist()
            if ratio == TUNED_RATIO and len(scalings) > 1:
                after = tuned(model, scaling, batches_at(ratio * trained), seed)
                found[f"{scaling}, tuned"] = token_losses(after, windows)[:, trained:].mean(axis=1)
        by_ratio[str(ratio)] = {way: each.tolist() for way, each in found.items()}
    return {"by_ratio": by_ratio, "by_position": by_position}


def at_trained_length(model: Model, windows: Windows, trained: int) -> Array:
    """(windows,) of the same targets, each read from ``trained`` tokens at most."""
    count, length = windows.inputs.shape
    parts = length // trained - 1
    short = Windows(
        windows.inputs[:, trained:].reshape(count * parts, trained),
        windows.targets[:, trained:].reshape(count * parts, trained),
        windows.stretches.repeat(parts),
        windows.population,
    )
    found: Array = token_losses(model, short).mean(axis=1).reshape(count, parts).mean(axis=1)
    return found


def rescaled(model: Model, scaling: RopeScaling, ratio: int) -> Model:
    """The same weights, with rotary positions for ``ratio`` times the length."""
    if scaling == "none":
        return model
    config = model.config.replace(rope_scaling=scaling, rope_scaling_factor=float(ratio))
    other = Model(config).to(model.wte.weight.device)
    other.load_state_dict(model.state_dict())
    return other


def tuned(model: Model, scaling: RopeScaling, batches: Batches, seed: int) -> Model:
    """A copy, trained for a short time at TUNED_RATIO times the length."""
    other = rescaled(copy.deepcopy(model), scaling, TUNED_RATIO)
    recipe = Recipe(
        TUNED_STEPS, TUNED_RATE, warmup_steps=TUNED_STEPS // 10, decay_steps=TUNED_STEPS // 5,
        seed=seed,
    )  # fmt: skip
    for _ in Training(other, batches, recipe).losses():
        pass
    return other
