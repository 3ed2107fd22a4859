"""L2, position encoding: what it costs, what it does to the embedding, what scores depend on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.assets import play_texts
from benchmarks.experiment import Settings, experiment
from benchmarks.results import Measurement, Parameter
from benchmarks.stats import Estimate, bootstrap_mean_interval
from benchmarks.train_reference import encode, joined, shuffled_windows
from reference_model import training
from reference_model.checkpoints import load_reference, reference_tokenizer
from reference_model.config import EmbeddingScale, GPTConfig, Position, RopeScaling, preset
from reference_model.costs import parameters_by_part
from reference_model.model import GPT
from reference_model.positions import (
    NoPositions,
    alibi_bias,
    make_additive_positions,
    rotary_angles,
    rotate,
)

POSITIONS: tuple[Position, ...] = get_args(Position)

# ---- position.parameters


def counted_parameters(config: GPTConfig) -> int:
    """Parameters of the model as built."""
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for p in GPT(config).parameters())


@experiment("position.parameters", smoke=2, quick=2, full=2)
def position_parameters(settings: Settings) -> list[Measurement]:
    """Parameters that each encoding adds to GPT-2 small: counted, in closed form, as a share."""
    without = counted_parameters(preset("gpt2", position="none"))
    measurements = []
    for position in POSITIONS:
        config = preset("gpt2", position=position)
        total = counted_parameters(config)
        for metric, unit, value, source in (
            ("parameters", "parameters", total - without, "counted"),
            ("closed_form", "parameters", parameters_by_part(config)["positions"], "closed form"),
            ("share_of_model", "percent", 100 * (total - without) / total, "counted"),
        ):
            labels: dict[str, Parameter] = {"model": "gpt2"}
            measurements.append(
                _measured("position.parameters", metric, unit, value, position, labels, source)
            )
    return measurements


# ---- position.relative

PAIRS = 4  # of a query and a key token, each with projections of its own


def scores_at_all_positions(config: GPTConfig, generator: torch.Generator) -> Tensor:
    """Scores (PAIRS, T, T) of query tokens against key tokens in every pair of positions; float64.

    Row i, column j: the first head's score with the query at position i and the key at j. Token
    embeddings, and learned positions, are N(0, 1); the projections keep that size.
    """
    T, C, D = config.context_length, config.n_embd, config.d_head
    tokens = torch.randn(2, PAIRS, 1, C, generator=generator, dtype=torch.float64)
    projections = torch.randn(2, PAIRS, C, D, generator=generator, dtype=torch.float64) / C**0.5
    additive = make_additive_positions(config).double()
    for weight in additive.parameters():
        torch.nn.init.normal_(weight, generator=generator)
    with torch.no_grad():
        streams = [additive(token.expand(PAIRS, T, C)) for token in tokens]
    q, k = (stream @ projection for stream, projection in zip(streams, projections, strict=True))
    if config.position == "rope":
        angles = rotary_angles(config, 0, T)
        q, k = (rotate(x, angles.cos(), angles.sin()) for x in (q, k))
    scores = q @ k.mT / D**0.5
    if config.position == "alibi":
        scores = scores + alibi_bias(config.n_head, 0, T)[0]
    return scores


def largest_shift_deviation(scores: Tensor) -> float:
    """Largest change of a score (…, T, T) under a shift of both positions, at any distance."""
    # In numpy, since torch would wake all its threads for each of thousands of small pieces.
    values, length = scores.numpy(), scores.shape[-1]
    return max(
        float(np.ptp(values.diagonal(distance, axis1=-2, axis2=-1), axis=-1).max())
        for distance in range(1 - length, length)
    )


@experiment("position.relative", smoke=2, quick=2, full=2)
def relative(settings: Settings) -> list[Measurement]:
    """Largest change of an attention score when query and key are shifted together.

    Every distance and every shift within GPT-2's context, for random pairs of tokens.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    measurements = []
    for config in _encodings():
        scores = scores_at_all_positions(config, generator)
        labels: dict[str, Parameter] = {"context": config.context_length, "pairs": PAIRS}
        if config.position == "rope":
            labels["rope_scaling"] = config.rope_scaling
        for metric, value in (
            ("shift_deviation", largest_shift_deviation(scores)),
            ("score_root_mean_square", float(scores.square().mean().sqrt())),
        ):
            measurements.append(
                _measured(
                    "position.relative", metric, "1", value, config.position, labels, "simulation"
                )
            )
    return measurements


def _encodings() -> Iterator[GPTConfig]:
    """One head of GPT-2's width in its context, by encoding; rotary ones in each scaling."""
    one_head = preset("gpt2", n_embd=64, n_head=1)
    for position in POSITIONS:
        scalings: tuple[RopeScaling, ...] = ("none",)
        if position == "rope":
            scalings = get_args(RopeScaling)
        for scaling in scalings:
            factor = 1.0 if scaling == "none" else 2.0
            yield one_head.replace(
                position=position, rope_scaling=scaling, rope_scaling_factor=factor
            )


# ---- position.embedding-untouched


@dataclass(frozen=True)
class Training:
    """How far models with sinusoidal positions are trained before they are looked at."""

    steps: int
    seeds: int


# A smoke run has no time to train: there the claim's part on sinusoidal positions stays open.
TRAINING = {"quick": Training(steps=100, seeds=1), "full": Training(steps=2000, seeds=5)}
BATCH_SIZE = 4
EXACT_WINDOWS = 16  # enough where nothing at all may change


@contextmanager
def without_positions(model: GPT) -> Iterator[None]:
    """The model with nothing added to its token embeddings."""
    positions = model.wpe
    model.wpe = NoPositions()
    try:
        yield
    finally:
        model.wpe = positions


@torch.inference_mode()
def streams(model: GPT, windows: Tensor) -> tuple[Tensor, Tensor]:
    """What enters the first block, (B, T, C) float64, with and without positions."""
    touched = model.embed(windows)
    with without_positions(model):
        untouched = model.embed(windows)
    return touched.double(), untouched.double()


@dataclass(frozen=True)
class Touch:
    """What positions do to each token's vector, (windows, T) each."""

    norm_change: Tensor  # | ‖with‖ / ‖without‖ − 1 |
    norm_growth: Tensor  # ‖with‖ / ‖without‖ − 1
    cosine: Tensor  # of with and without
    largest: float  # largest difference of a coordinate


def touch(model: GPT, windows: Tensor) -> Touch:
    """Compare the stream with and without positions over windows (windows, T) of token ids."""
    touched, untouched = streams(model, windows)
    growth = touched.norm(dim=-1) / untouched.norm(dim=-1) - 1
    cosine = torch.cosine_similarity(touched, untouched, dim=-1)
    return Touch(growth.abs(), growth, cosine, float((touched - untouched).abs().max()))


def text_windows(text: str, window: int) -> Tensor:
    """Token ids (windows, window) of a text in the reference vocabulary, without overlap."""
    ids = encode(reference_tokenizer(), text)
    return ids[: len(ids) // window * window].view(-1, window)


def train_sinusoidal(scale: EmbeddingScale, training_of: Training, seed: int) -> GPT:
    """The toy model with sinusoidal positions, trained on plays in the reference vocabulary."""
    config = preset(
        "toy",
        vocab_size=reference_tokenizer().get_vocab_size(),
        position="sinusoidal",
        embedding_scale=scale,
    )
    torch.manual_seed(seed)
    model = GPT(config)
    recipe = training.Recipe(
        steps=training_of.steps,
        learning_rate=3e-3,
        warmup_steps=training_of.steps // 10,
        evaluate_every=max(training_of.steps // 4, 100),
        seed=seed,
    )
    window = config.context_length
    needed = training_of.steps * BATCH_SIZE * window
    batches = shuffled_windows(_training_tokens(needed), window, BATCH_SIZE, seed)
    validation = text_windows(next(iter(play_texts("validation").values())), window).flatten()
    for _ in training.train(model, batches, validation[: 16 * window + 1], recipe):
        pass
    return model.eval()


def _training_tokens(needed: int) -> Tensor:
    """The first training plays, as many as it takes to see no token twice; all, if too few."""
    tokenizer, parts, count = reference_tokenizer(), [], 0
    for text in play_texts("train").values():
        parts.append(encode(tokenizer, text))
        count += len(parts[-1])
        if count > needed + needed // 10:
            break
    return torch.cat(parts)


@experiment("position.embedding-untouched", smoke=4, quick=45, full=3600)
def embedding_untouched(settings: Settings) -> list[Measurement]:
    """What each encoding does to the stream that enters the first block, on the test plays.

    Learned positions are those of the shipped checkpoint, and encodings that add nothing are put
    in their place there. Sinusoidal positions have models trained for them, with and without the
    √C that the original paper puts on the embeddings; embeddings grow in training while sinusoids
    do not, so that the change shrinks with the steps, which are a label. The interval is that of
    the text (blocks: windows), given the model.
    """
    reference = load_reference()
    windows = text_windows(joined("test"), reference.config.context_length)
    shipped: dict[str, Parameter] = {"state": "trained", "model": "reference"}
    measurements = _touches(
        "learned", shipped, touch(reference, windows), settings.seed, "checkpoint"
    )
    for position in ("rope", "alibi", "none"):
        other = with_weights_of(reference, reference.config.replace(position=position))
        found = touch(other, windows[:EXACT_WINDOWS])
        for metric, unit, largest in (
            ("embedding_change", "1", found.largest),
            ("norm_change", "ratio", float(found.norm_change.max())),
        ):
            measurements.append(
                _measured(
                    "position.embedding-untouched",
                    metric,
                    unit,
                    largest,
                    position,
                    shipped,
                    "checkpoint",
                )
            )
    if settings.profile in TRAINING:
        measurements += _sinusoidal(TRAINING[settings.profile], settings.seed)
    return measurements


def with_weights_of(model: GPT, config: GPTConfig) -> GPT:
    """A model of this configuration with another's weights, its positions left out."""
    other = GPT(config)
    weights = {name: w for name, w in model.state_dict().items() if not name.startswith("wpe.")}
    other.load_state_dict(weights)
    return other.eval()


def _sinusoidal(training_of: Training, first_seed: int) -> list[Measurement]:
    text = joined("test")
    measurements = []
    for scale in get_args(EmbeddingScale):
        for seed in range(first_seed, first_seed + training_of.seeds):
            model = train_sinusoidal(scale, training_of, seed)
            windows = text_windows(text, model.config.context_length)
            labels: dict[str, Parameter] = {
                "state": "trained",
                "model": "toy",
                "embedding_scale": scale,
                "steps": training_of.steps,
                "seed": seed,
            }
            found = touch(model, windows)
            measurements += _touches("sinusoidal", labels, found, first_seed, "training")
    return measurements


def _touches(
    option: str, labels: dict[str, Parameter], found: Touch, seed: int, source: str
) -> list[Measurement]:
    """The largest difference, and means over tokens with intervals over windows."""
    claim = "position.embedding-untouched"
    measurements = [
        _measured(claim, "embedding_change", "1", found.largest, option, labels, source)
    ]
    for metric, unit in (("norm_change", "ratio"), ("norm_growth", "ratio"), ("cosine", "1")):
        mean = bootstrap_mean_interval(getattr(found, metric).numpy(), seed=seed)
        measurements.append(_measured(claim, metric, unit, mean, option, labels, source))
    return measurements


def _measured(
    claim: str,
    metric: str,
    unit: str,
    found: float | Estimate,
    option: str,
    labels: dict[str, Parameter],
    source: str,
) -> Measurement:
    estimate = found if isinstance(found, Estimate) else None
    return Measurement(
        claim=claim,
        metric=metric,
        unit=unit,
        value=found.value if isinstance(found, Estimate) else found,
        interval=estimate.interval if estimate else None,
        n=estimate.n if estimate else None,
        direction="none",
        choice="positions",
        option=option,
        parameters=labels,
        source=source,
    )
