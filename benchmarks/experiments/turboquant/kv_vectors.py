"""Real keys and values of the checkpoint, and the same with outliers of a known strength."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.subjects.subject import Subject, subject_of
from reference_model.cache import KVCache
from reference_model.parts import Role, parts_with

OUTLIERS, STRENGTH = 2, 20.0  # channels, and how many times as large
LEAST_WINDOWS = 8  # of text from which vectors are drawn, spread over all test plays


@torch.inference_mode()
def keys_and_values(
    settings: Settings, count: int, drop_biases: bool = True
) -> tuple[Tensor, Tensor]:
    """``count`` keys and as many values (count, D), of all layers and heads; less their biases.

    Drawn from windows that are spread over the held-out text; the same for the same seed.
    """
    subject, seed = subject_of(settings), settings.seed
    if not subject.is_built_here:
        return _as_transformers_caches(subject, count, seed)
    model, config, length = subject.model(), subject.config, subject.window
    per_token = config.n_layer * config.n_kv_head
    needed = max(LEAST_WINDOWS, -(-count // (per_token * length)))
    windows = subject.windows(needed, seed)
    cache = KVCache(config, len(windows), length, subject.dtype, subject.device)
    model(windows.inputs.to(subject.device), cache)
    order = torch.randperm(
        len(windows) * length * per_token, generator=torch.Generator().manual_seed(seed)
    )[:count]
    found = []
    roles: tuple[tuple[Role, list[Tensor]], ...] = (("key", cache.keys), ("value", cache.values))
    for role, held in roles:
        vectors = torch.stack(held)  # (L, B, Hkv, T, D)
        # After a norm or a rotation a key's bias is no longer the part that all keys share.
        turned = role == "key" and (config.qk_norm or config.position == "rope")
        if drop_biases and config.qkv_bias and not turned:
            parts = parts_with(model, role)
            biases = torch.stack([p.module.get_parameter("bias")[p.outputs] for p in parts])
            vectors = vectors - biases.view(config.n_layer, 1, config.n_kv_head, 1, config.d_head)
        found.append(vectors.flatten(0, -2).cpu()[order])
    return found[0], found[1]


def _as_transformers_caches(subject: Subject, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """The same, biases included, of a model that transformers runs."""
    from transformers import DynamicCache

    windows = subject.windows(LEAST_WINDOWS, seed)
    cache: Any = DynamicCache()
    subject.module()(windows.inputs.to(subject.device), cache)
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    keys, values = (
        torch.cat([held.flatten(0, -2) for held in each]).cpu()
        for each in zip(*layers, strict=True)
    )
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(seed))[:count]
    return keys[order], values[order]


def with_outliers(x: Tensor) -> Tensor:
    """x (N, D) with its first channels made larger, the same in each vector."""
    grown = x.clone()
    grown[:, :OUTLIERS] *= STRENGTH
    return grown
