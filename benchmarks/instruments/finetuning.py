"""Fine-tunes of the checkpoint with adapters, one at a time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from benchmarks.instruments.clock import interleaved_durations
from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.texts import shuffled_windows
from benchmarks.instruments.topics import topic_tokens
from benchmarks.instruments.windows import spread, windows_of
from benchmarks.subjects.built import Model
from reference_model.checkpoints import load_reference
from reference_model.costs import LoRATarget
from reference_model.lora import (
    LoRAConfig,
    ScalingLaw,
    adapter_parameters,
    add_adapters,
    merge_adapters,
)
from reference_model.training import Batches, Recipe, Training

Optimizer = Literal["sgd", "adamw"]

ALL_LINEARS: tuple[LoRATarget, ...] = (
    "query",
    "key",
    "value",
    "attention_output",
    "mlp_in",
    "mlp_out",
)
WINDOW = 256  # tokens; of validation and of held-out text


@dataclass(frozen=True)
class FineTune:
    """What decides the outcome, besides the checkpoint and the text.

    AdamW without weight decay, linear warm-up, then linearly down to 0. Adapters on all linears,
    Kaiming A, B = 0. ``seed`` draws A and the order of the text: the same for all that is compared.
    """

    scaling: ScalingLaw
    rank: int
    learning_rate: float
    seed: int
    steps: int
    warmup_steps: int
    batch_size: int
    length: int  # tokens of a sequence in training
    alpha: float = 16.0
    evaluation_windows: tuple[int, int] = (12, 40)  # of validation and of held-out text


@dataclass(frozen=True)
class Outcome:
    """Losses are means over each window, nats per token; none where training diverged."""

    validation: list[float]
    held_out: list[float]
    trained_parameters: int
    frozen_parameters: int
    optimizer_bytes: int

    @property
    def validation_loss(self) -> float:
        """Infinite where training diverged."""
        return statistics.fmean(self.validation) if self.validation else math.inf


def adapted(
    config: LoRAConfig, seed: int, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> Model:
    """The checkpoint with adapters drawn by ``seed``: the same ones on any device."""
    model = load_reference(dtype)
    add_adapters(model, config, torch.Generator().manual_seed(seed))
    return model.to(device)


def adapter_training(
    model: Model, batches: Batches, recipe: Recipe, optimizer: Optimizer = "adamw"
) -> Training:
    """Of the adapters alone, by plain SGD or by AdamW without weight decay."""
    parameters, rate = adapter_parameters(model), recipe.learning_rate
    of_adapters: torch.optim.Optimizer = (
        torch.optim.SGD(parameters, lr=rate)
        if optimizer == "sgd"
        else torch.optim.AdamW(parameters, lr=rate, weight_decay=0.0)
    )
    return Training(model, batches, recipe, [of_adapters])


def at_constant_rate(rate: float, steps: int) -> Recipe:
    """Neither warm-up nor decay, and gradients as they are."""
    return Recipe(steps, rate, warmup_steps=0, decay_steps=0, gradient_clip=None)


def topic_batches(batch_size: int, length: int, seed: int) -> Batches:
    """Batches (B, T + 1) of the topics that are trained on."""
    return shuffled_windows(topic_tokens("train"), length, batch_size, seed)


def topic_probe(size: int, length: int) -> Tensor:
    """One batch (B, T + 1) from all over the topics that are kept for validation."""
    windows = spread(windows_of(topic_tokens("validation"), length), size, seed=0)
    return torch.cat([windows.inputs, windows.targets[:, -1:]], dim=1)


def state_bytes(training: Training) -> int:
    """Bytes of what its optimisers keep between two steps, as held."""
    return sum(
        value.nbytes
        for optimizer in training.optimizers
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )


def spread_windows(tokens: Tensor, count: int) -> Tensor:
    """``count`` windows of WINDOW tokens from all over a text (N,), as one text; all, if fewer."""
    windows = tokens[: len(tokens) // WINDOW * WINDOW].view(-1, WINDOW)
    chosen = torch.linspace(0, len(windows) - 1, min(count, len(windows))).round().long()
    # The last target lies one token further.
    return torch.cat([windows[chosen].flatten(), tokens[:1]])


def run(spec: FineTune, device: str = "cpu") -> Outcome:
    """Train, merge and evaluate; a training loss that is not finite ends it without losses."""
    training = _begun(spec, device)
    model, parameters = training.model, adapter_parameters(training.model)
    diverged = not all(math.isfinite(loss) for loss in training.losses())
    return Outcome(
        *([], []) if diverged else _losses(model, spec.evaluation_windows),
        trained_parameters=sum(p.numel() for p in parameters),
        frozen_parameters=sum(p.numel() for p in model.parameters() if not p.requires_grad),
        optimizer_bytes=state_bytes(training),
    )


def step_seconds(specs: Sequence[FineTune], device: str = "cpu") -> list[float]:
    """Median seconds of a step of each fine-tune; they take turns, step by step."""
    begun = [_begun(spec, device).losses() for spec in specs]
    arms = {str(index): partial(next, losses) for index, losses in enumerate(begun)}
    taken = interleaved_durations(arms, min(spec.steps for spec in specs) - 1)
    return [statistics.median(taken[name]) for name in arms]


def _begun(spec: FineTune, device: str) -> Training:
    config = LoRAConfig(spec.rank, spec.alpha, spec.scaling, ALL_LINEARS)
    model = adapted(config, spec.seed, device=device)
    recipe = Recipe(
        spec.steps, spec.learning_rate, warmup_steps=spec.warmup_steps, gradient_clip=None
    )
    return adapter_training(model, topic_batches(spec.batch_size, spec.length, spec.seed), recipe)


def _losses(model: Model, windows: tuple[int, int]) -> tuple[list[float], list[float]]:
    """Validation and held-out loss of each window, with the adapters merged."""
    merge_adapters(model)
    validation, held_out = (
        token_losses(model, windows_of(spread_windows(topic_tokens(split), count), WINDOW)).mean(
            axis=1
        )
        for split, count in zip(("validation", "test"), windows, strict=True)
    )
    return validation.tolist(), held_out.tolist()
