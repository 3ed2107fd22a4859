"""A model so small that a test costs nothing: its sizes, tokens for it, weights of some size."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from reference_model.lora import LoRAConfig, add_adapters

TINY = {"vocab_size": 23, "context_length": 12, "n_layer": 2, "n_head": 2, "n_embd": 16}
TOKENS = torch.randint(23, (2, 12), generator=torch.Generator().manual_seed(5))


def enlarge(model: nn.Module, seed: int = 1) -> None:
    """Draw weights as large as trained ones: at initialisation attention is nearly even."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        is_norm = "ln_" in name or "_norm." in name
        if parameter.ndim == 2:
            drawn = noise if "wte" in name or "wpe" in name else noise / parameter.shape[1] ** 0.5
        else:
            drawn = 0.2 * noise + (1.0 if is_norm and name.endswith("weight") else 0.0)
        parameter.data.copy_(drawn)


def adapted(model: Any, **choices: Any) -> Any:
    """With random A and B of rank 3, an update that is seen: the model itself."""
    config = LoRAConfig(**{"rank": 3, "init_b": "gaussian", **choices})
    add_adapters(model, config, torch.Generator().manual_seed(0))
    return model
