"""Real keys and values of the checkpoint, and the same with outliers of a known strength."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.instruments.texts import play_windows
from reference_model.cache import KVCache
from reference_model.checkpoints import load_reference
from reference_model.parts import Role, parts_with

OUTLIERS, STRENGTH = 2, 20.0  # channels, and how many times as large
LEAST_WINDOWS = 8  # of text from which vectors are drawn, spread over all test plays


@torch.inference_mode()
def keys_and_values(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """``count`` keys and as many values (count, D), of all layers and heads, biases dropped.

    Drawn from windows that are spread over the test plays; the same for the same seed.
    """
    model = load_reference()
    config = model.config
    length, per_token = config.context_length, config.n_layer * config.n_head
    needed = max(LEAST_WINDOWS, -(-count // (per_token * length)))
    windows = play_windows("test", length, needed, seed)
    cache = KVCache(config, len(windows), length)
    model(windows.inputs, cache)
    order = torch.randperm(
        len(windows) * length * per_token, generator=torch.Generator().manual_seed(seed)
    )[:count]
    found = []
    roles: tuple[tuple[Role, list[Tensor]], ...] = (("key", cache.keys), ("value", cache.values))
    for role, held in roles:
        biases = torch.stack(
            [part.module.get_parameter("bias")[part.outputs] for part in parts_with(model, role)]
        )
        of_heads = biases.view(config.n_layer, 1, config.n_head, 1, config.d_head)
        vectors = torch.stack(held) - of_heads  # (L, B, H, T, D)
        found.append(vectors.flatten(0, -2)[order])
    return found[0], found[1]


def with_outliers(x: Tensor) -> Tensor:
    """x (N, D) with its first channels made larger, the same in each vector."""
    grown = x.clone()
    grown[:, :OUTLIERS] *= STRENGTH
    return grown
