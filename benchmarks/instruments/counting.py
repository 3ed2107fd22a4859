"""Parameters counted on the model as built, to stand beside the closed form."""

import torch

from reference_model.config import GPTConfig
from reference_model.model import GPT


def counted_parameters(config: GPTConfig) -> int:
    """Parameters of the model as built, a shared matrix counted once."""
    with torch.device("meta"):  # shapes without memory
        return sum(p.numel() for p in GPT(config).parameters())
