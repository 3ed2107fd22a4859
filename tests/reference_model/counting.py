"""A small model that learns to count, for tests of training."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from reference_model.config import GPTConfig
from reference_model.model import GPT
from reference_model.training import Progress, Recipe, train

CONFIG = GPTConfig(vocab_size=11, context_length=8, n_layer=2, n_head=2, n_embd=16)
RECIPE = Recipe(steps=10, learning_rate=1e-2, warmup_steps=2, evaluate_every=2, patience=99)
VALIDATION = (torch.arange(50) * 3) % 11


def counting_batches(step: int) -> Tensor:
    """Batches (4, 9) of texts in which each token is the one before plus three."""
    starts = torch.randint(11, (4, 1), generator=torch.Generator().manual_seed(step))
    return (starts + 3 * torch.arange(9)) % 11


def new_model(**choices: object) -> GPT:
    torch.manual_seed(7)
    return GPT(CONFIG.replace(**choices))


def run(model: GPT, recipe: Recipe, folder: Path | None = None, stop_at: int = 999) -> Progress:
    """Train until the end, or leave the loop after a step, as when the process is ended."""
    progress = Progress()
    for progress in train(model, counting_batches, VALIDATION, recipe, folder):
        if progress.step == stop_at:
            break
    return progress


def assert_same_weights(one: GPT, other: GPT) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
