"""Loss on held-out text, and the difference of two losses on the same text.

Each variant reads the same tokens in the same windows, so that a difference is a paired one: the
windows that are hard are hard for both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from benchmarks.instruments.windows import Windows

NATS_PER_BIT = math.log(2)


def token_losses(
    model: torch.nn.Module, windows: Windows, batch_size: int = 8
) -> NDArray[np.float64]:
    """Nats per token, (windows, T); ``model`` maps tokens (B, T) to logits (B, T, V).

    Raises ValueError on a loss that is not finite.
    """
    import torch
    from torch.nn.functional import cross_entropy

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    losses = []
    try:
        with torch.inference_mode():
            for x, y in windows.batches(batch_size, device):
                logits = model(x)  # (B, T, V)
                if logits.dtype != torch.float64:
                    logits = logits.float()
                # Not of logits.mT: with strides float32 adds a large vocabulary up one by one,
                # and errs by 1e-4 nats.
                each = cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none")
                losses.append(each.view(y.shape).double().cpu())
    finally:
        model.train(was_training)
    result = torch.cat(losses).numpy()
    if not np.isfinite(result).all():
        raise ValueError(
            f"{int((~np.isfinite(result)).sum())} of {result.size} losses are not finite"
        )
    return result


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Bits per byte of text whose tokens cost ``nats`` in all: free of the vocabulary."""
    return nats / NATS_PER_BIT / text_bytes
