"""Loss on held-out text, and the difference of two losses on the same text.

Each variant reads the same tokens in the same windows, so that a difference is a paired one: the
windows that are hard are hard for both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats import Estimate, bootstrap_mean_interval, paired_difference_interval

if TYPE_CHECKING:
    import torch

NATS_PER_BIT = math.log(2)


def token_losses(
    model: torch.nn.Module, tokens: torch.Tensor, window: int, batch_size: int = 8
) -> NDArray[np.float64]:
    """Nats per token, (windows, window); ``model`` maps tokens (B, T) to logits (B, T, V).

    ``tokens``: (N,) int64, cut as `windows_of` does. Raises ValueError on a text shorter than one
    window, and on a loss that is not finite.
    """
    import torch
    from torch.nn.functional import cross_entropy

    inputs, targets = windows_of(tokens, window, next(model.parameters()).device)
    was_training = model.training
    model.eval()
    losses = []
    try:
        with torch.inference_mode():
            for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
                logits = model(x)  # (B, T, V)
                if logits.dtype != torch.float64:
                    logits = logits.float()
                losses.append(cross_entropy(logits.mT, y, reduction="none").double().cpu())
    finally:
        model.train(was_training)
    result = torch.cat(losses).numpy()
    if not np.isfinite(result).all():
        raise ValueError(
            f"{int((~np.isfinite(result)).sum())} of {result.size} losses are not finite"
        )
    return result


def windows_of(
    tokens: torch.Tensor, window: int, device: torch.device | str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of tokens (N,), (windows, window) each, on ``device``.

    Window i predicts tokens[i*window + 1 : (i+1)*window + 1] from tokens[i*window : (i+1)*window];
    a remainder that does not fill a window is left out. Raises ValueError on a text shorter than
    one window.
    """
    windows = (len(tokens) - 1) // window
    if windows < 1:
        raise ValueError(f"{len(tokens)} tokens do not fill a window of {window} and its target")
    inputs = tokens[: windows * window].view(windows, window).to(device)
    return inputs, tokens[1 : windows * window + 1].view(windows, window).to(device)


def held_out_loss(losses: NDArray[np.float64], level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean of ``losses`` (windows, window) in nats per token, by a bootstrap over windows."""
    return bootstrap_mean_interval(losses, level, seed)


def loss_difference(
    losses: NDArray[np.float64],
    baseline: NDArray[np.float64],
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean of losses - baseline, both (windows, window), by a bootstrap over pairs of windows.

    Positive: worse than the baseline.
    """
    return paired_difference_interval(losses, baseline, level, seed)


def bits_per_byte(nats: float, text_bytes: int) -> float:
    """Bits per byte of text whose tokens cost ``nats`` in all: free of the vocabulary."""
    return nats / NATS_PER_BIT / text_bytes
