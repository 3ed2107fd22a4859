"""A small model with windows for it, and the text that ships with the checkpoint."""

from __future__ import annotations

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.instruments.windows import Windows, windows_of
from reference_model.checkpoints import REFERENCE_FOLDER
from reference_model.config import GPTConfig
from reference_model.model import GPT

WINDOW = 512


def shipped_tokens() -> Tensor:
    """Two windows of the text that ships with the checkpoint, and the last target."""
    whole = load_file(REFERENCE_FOLDER / "test_slice.safetensors")["tokens"]
    return whole[: 2 * WINDOW + 1].long()


def drawn_windows(count: int) -> Windows:
    """Random tokens for `small`, each window a text of its own."""
    return windows_of(list(torch.randint(128, (count, 33))), 32)


def small(**fields: object) -> GPT:
    """An untied model with a grid for every kind: 64 wide, so that a group fits."""
    known = {"vocab_size": 128, "context_length": 32, "n_layer": 2, "n_head": 2, "n_embd": 64}
    return GPT(GPTConfig(**{**known, "head": "untied", **fields})).eval()


def drawn_norms(model: GPT) -> GPT:
    """Fresh norms are 1 and 0, which every grid holds exactly."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" in f".{name}":
                parameter.add_(torch.randn_like(parameter) / 10)
    return model
