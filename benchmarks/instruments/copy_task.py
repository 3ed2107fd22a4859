"""A task whose answers depend on a distance alone: name the token that stood so far before.

Every second token is drawn anew; each that follows one is the drawn token DISTANCE pairs earlier.
Nothing that was read tells which one it is: only where it stands.
"""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.experiments.experiment import Found, Settings
from benchmarks.instruments.trained_models import config_of
from benchmarks.subjects.built import Model
from reference_model.training import Recipe, Training

SYMBOLS = 16  # an answer by chance is right once in so many
DISTANCE = 4  # pairs
LENGTH = 64  # tokens that are trained on
RATIOS = (1, 2, 4)  # of that length
WIDTH, LAYERS, HEADS = 64, 2, 2
STEPS, BATCH_SIZE = 1500, 16
RATES = (1e-3, 4e-3)  # the better one on sequences of the trained length is judged
JUDGED = 256  # sequences of each length


def measure(settings: Settings, option: str, seed: int) -> Found:
    """What a cell finds: by ratio the ``right`` share of answers, and the ``rate``.

    At a ratio above 1 only answers beyond the trained length count. Learned positions end there:
    they have a share at 1 alone.
    """
    tried = {rate: trained(settings, option, rate, seed) for rate in RATES}
    best = max(RATES, key=lambda rate: right(tried[rate], 1, seed=seed + 1000))
    readable = RATIOS if tried[best].config.position != "learned" else RATIOS[:1]
    judged = seed + 2000
    return {
        "rate": best,
        "right": {str(ratio): right(tried[best], ratio, judged) for ratio in readable},
    }


def trained(settings: Settings, option: str, rate: float, seed: int) -> Model:
    """A small model with an option of `trained_models`, after all steps or where it diverged."""
    small = {"vocab_size": SYMBOLS, "context_length": LENGTH, "n_embd": WIDTH}
    config = config_of(option).replace(n_layer=LAYERS, n_head=HEADS, **small)
    model = Model(config).to(settings.device)
    model.initialize_by_name(seed)
    recipe = Recipe(STEPS, rate, warmup_steps=STEPS // 15, decay_steps=STEPS // 5, seed=seed)
    for _ in Training(
        model, lambda step: sequences(BATCH_SIZE, LENGTH, seed, step), recipe
    ).losses():
        pass
    return model.eval()


def sequences(count: int, length: int, seed: int, step: int = 0) -> Tensor:
    """(count, length + 1) tokens; ``length`` is even, and the last token is no answer."""
    draws = torch.Generator().manual_seed(seed * 1_000_003 + step)
    drawn = torch.randint(SYMBOLS, (count, DISTANCE + length // 2 + 1), generator=draws)
    asked, answers = drawn[:, DISTANCE:], drawn[:, :-DISTANCE]
    return torch.stack([asked, answers], dim=2).flatten(1)[:, : length + 1]


@torch.inference_mode()
def right(model: Model, ratio: int, seed: int) -> float:
    """Share of answers that the model names, of sequences ``ratio`` times the trained length."""
    tokens = sequences(JUDGED, ratio * LENGTH, seed).to(model.wte.weight.device)
    named = model(tokens[:, :-1]).argmax(dim=-1)  # (JUDGED, length): of the token after each
    first = (LENGTH if ratio > 1 else 0) // 2
    # An answer follows a token that was drawn: those stand at even places.
    known = max(first, DISTANCE)
    return float((named == tokens[:, 1:])[:, ::2][:, known:].float().mean())
