"""Training as a short script has it: what the loop of `reference_model.training` is timed against.

The same model, recipe and batches, and nothing that a comparison needs beside them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.nn.functional import cross_entropy

from benchmarks.subjects.built import Model
from reference_model.training import Batches, Recipe, learning_rate_factor


def losses(model: Model, batches: Batches, recipe: Recipe) -> Iterator[float]:
    """Nats per token of each batch before its step, in float32 with AdamW."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ],
        lr=recipe.learning_rate,
        betas=(0.9, 0.95),
    )
    model.train()
    for step in range(recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * learning_rate_factor(step, recipe)
        tokens = batches(step)  # (B, T + 1)
        logits = model(tokens[:, :-1])  # (B, T, V)
        loss = cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        if recipe.gradient_clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_clip)
        optimizer.step()
        optimizer.zero_grad()
        yield loss.item()
