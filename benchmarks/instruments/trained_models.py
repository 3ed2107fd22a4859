"""Small models that are trained to be compared: one option differs, and all else is the same.

The same text in the same order, equal tokens, and for every weight that two options share the same
first value. Rounding alone, in one part of a million, moves a loss of these by 0.01 nats: seeds
decide, not pairing.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from benchmarks.data.assets import play_texts
from benchmarks.experiments.experiment import Found, Settings
from benchmarks.instruments.extrapolation import beyond
from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.texts import encode, joined, shuffled_windows
from benchmarks.instruments.windows import Windows, windows_of
from benchmarks.subjects.built import Model, ModelConfig
from reference_model.checkpoints import reference_tokenizer
from reference_model.errors import UserError
from reference_model.training import Batches, Recipe, Training

BASELINE = "baseline"
CONFIG = ModelConfig(vocab_size=1024, context_length=128, n_layer=4, n_head=2, n_embd=128)
FOUR_HEADS = {"n_head": 4}
# By name the fields that differ from CONFIG, which is Pre-LN, LayerNorm, learned and tied.
OPTIONS: dict[str, dict[str, Any]] = {
    BASELINE: {},
    "rope": {"position": "rope"},
    "sinusoidal": {"position": "sinusoidal"},
    "sinusoidal, scaled": {"position": "sinusoidal", "embedding_scale": "sqrt_width"},
    "alibi": {"position": "alibi"},
    "none": {"position": "none"},
    "untied": {"head": "untied"},
    # The head's 131,072 numbers are taken from the MLP: 512 fewer are left.
    "untied, equal parameters": {"head": "untied", "d_mlp": 384},
    "rmsnorm": {"norm": "rmsnorm"},
    "double": {"norm_placement": "double"},
    "double, scaled": {"norm_placement": "double", "embedding_scale": "sqrt_width"},
    "deepnorm": {"norm_placement": "deepnorm"},
    "post": {"norm_placement": "post"},
    "post, xavier": {"norm_placement": "post", "initialization": "xavier"},
    "four heads": FOUR_HEADS,
    "one for four": {**FOUR_HEADS, "n_kv_head": 1},
    # The three quarters of keys and values that are saved go to the MLP: 192 more.
    "one for four, equal parameters": {**FOUR_HEADS, "n_kv_head": 1, "d_mlp": 608},
    # A gate is a third matrix: 341 numbers between them cost what 512 do without.
    "swiglu for four": {**FOUR_HEADS, "mlp": "swiglu", "d_mlp": 341},
    "half a head": {"d_head": 32},
}

BATCH_SIZE = 8
STEP_TOKENS = BATCH_SIZE * CONFIG.context_length
HALF, WHOLE = 1024 * STEP_TOKENS, 2048 * STEP_TOKENS  # 1.05 and 2.1 M tokens
WARMUP_STEPS = 100
DECAYED = 5  # the last fifth of all steps decays
MARGIN = 0.2  # nats below the entropy of single tokens: a model that has learnt more than those
CURVE = 32  # steps of which a curve has the mean


def config_of(option: str) -> ModelConfig:
    """`UserError` for an option that is not there."""
    if option not in OPTIONS:
        raise UserError(f"{option!r} is no option; use one of {', '.join(OPTIONS)}")
    return CONFIG.replace(**OPTIONS[option])


def measure(
    settings: Settings,
    option: str,
    rate: float,
    seed: int,
    tokens: int = WHOLE,
    warmup: int = WARMUP_STEPS,
) -> Found:
    """What a cell finds: the model after ``tokens``, and after half as many where that is WHOLE.

    By the number of tokens: held-out ``losses`` (windows,) in nats per token, none where training
    diverged; the ``outcome``, "trained", "stalled" or "diverged", and its ``reason``. ``curve``:
    tokens and the mean training loss of the CURVE steps before them. Of a model after WHOLE
    ``beyond`` is what `extrapolation.beyond` finds, and ``shuffled`` what `shuffled` finds.
    """
    model = Model(config_of(option)).to(settings.device)
    model.initialize_by_name(seed)
    steps = [count // STEP_TOKENS for count in (*([HALF] if tokens == WHOLE else []), tokens)]
    recipes = [recipe_of(count, rate, seed, warmup) for count in steps]
    training = Training(model, batches_of(seed), recipes[-1])
    found: dict[str, Any] = {}
    losses: list[float] = []
    for recipe in recipes:
        losses += training.losses(until=recipe.steps - recipe.steps // DECAYED)
        branch = training if recipe is recipes[-1] else copy.deepcopy(training)
        branch.recipe = recipe
        decayed = list(branch.losses())
        found[str(recipe.steps * STEP_TOKENS)] = judged(branch, [*losses, *decayed])
    learnt = tokens == WHOLE and found[str(tokens)]["outcome"] == "trained"
    return {
        "by_tokens": found,
        "curve": curve_of([*losses, *decayed]),
        "beyond": beyond(model, held_out, partial(batches_of, seed), seed) if learnt else None,
        "shuffled": shuffled(model, seed) if learnt else None,
    }


def shuffled(model: Model, seed: int) -> list[float] | None:
    """(windows,) nats per token with its learned positions in another order; None without such.

    A model that uses its positions must lose by it.
    """
    if model.config.position != "learned":
        return None
    other = copy.deepcopy(model)
    draws = torch.Generator().manual_seed(seed)
    order = torch.randperm(model.config.context_length, generator=draws)
    (positions,) = other.wpe.parameters()
    positions.data = positions.data[order.to(positions.device)]
    losses: list[float] = token_losses(other, held_out()).mean(axis=1).tolist()
    return losses


def recipe_of(steps: int, rate: float, seed: int, warmup: int = WARMUP_STEPS) -> Recipe:
    """AdamW at a constant rate that decays at the end."""
    return Recipe(steps, rate, warmup_steps=warmup, decay_steps=steps // DECAYED, seed=seed)


def judged(training: Training, losses: Sequence[float]) -> dict[str, Any]:
    """What became of a model whose training losses these were."""
    if not math.isfinite(losses[-1]):
        reason = f"the loss became {losses[-1]} at step {training.step}"
        return {"losses": [], "outcome": "diverged", "reason": reason}
    try:
        each = token_losses(training.model, held_out()).mean(axis=1)
    except ValueError as error:  # the last step was the one
        return {"losses": [], "outcome": "diverged", "reason": str(error)}
    border = unigram_entropy() - MARGIN
    if each.mean() > border:
        reason = f"{each.mean():.3f} nats is above {border:.3f}, {MARGIN} below single tokens'"
        return {"losses": each.tolist(), "outcome": "stalled", "reason": reason}
    return {"losses": each.tolist(), "outcome": "trained", "reason": ""}


def curve_of(losses: Sequence[float]) -> list[tuple[int, float]]:
    """Of whole pieces alone, and of those without a NaN."""
    pieces = [losses[at : at + CURVE] for at in range(0, len(losses) - CURVE + 1, CURVE)]
    return [
        ((index + 1) * CURVE * STEP_TOKENS, statistics.fmean(piece))
        for index, piece in enumerate(pieces)
        if all(map(math.isfinite, piece))
    ]


# ---- text


def smaller_tokenizer(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """A byte-pair tokenizer of ``size`` tokens, as trained on the same text.

    Merges are found one by one: those of a smaller vocabulary are the first ones of a larger.
    """
    told = json.loads(tokenizer.to_str())
    model = told["model"]
    model["vocab"] = {text: at for text, at in model["vocab"].items() if at < size}
    model["merges"] = [pair for pair in model["merges"] if "".join(pair) in model["vocab"]]
    return Tokenizer.from_str(json.dumps(told))


@functools.cache
def _tokenizer() -> Tokenizer:
    return smaller_tokenizer(reference_tokenizer(), CONFIG.vocab_size)


@functools.cache
def _training_tokens() -> Tensor:
    return encode(_tokenizer(), joined("train"))


def batches_of(seed: int, window: int = CONFIG.context_length) -> Batches:
    """(B, window + 1) of the training plays, in an order that the seed draws; equal tokens."""
    return shuffled_windows(_training_tokens(), window, STEP_TOKENS // window, seed)


@functools.cache
def held_out(window: int = CONFIG.context_length) -> Windows:
    """All windows of the plays for test and validation."""
    plays = [*play_texts("test").values(), *play_texts("validation").values()]
    texts = [encode(_tokenizer(), play) for play in plays]
    return windows_of(texts, window, f"the text of {len(texts)} plays")


@functools.cache
def unigram_entropy() -> float:
    """Nats per token of the held-out text for who knows how often each token stands in it."""
    counts = torch.bincount(held_out().targets.flatten()).double()
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * shares.log()).sum())


def losses_after(found: Mapping[str, Any], tokens: int) -> list[float]:
    """(windows,) of what `measure` found; none where training diverged."""
    losses: list[float] = found["by_tokens"][str(tokens)]["losses"]
    return losses
