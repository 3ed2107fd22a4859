"""What RMSNorm costs beside LayerNorm: arithmetic by their formulas, seconds by turns."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.experiments.experiment import Found, Settings
from benchmarks.instruments.clock import interleaved_durations
from benchmarks.instruments.trained_models import (
    BASELINE,
    BATCH_SIZE,
    CONFIG,
    WARMUP_STEPS,
    config_of,
    recipe_of,
)
from benchmarks.subjects.built import Model
from reference_model.norms import make_norm
from reference_model.training import Training

OPTIONS = {"layernorm": BASELINE, "rmsnorm": "rmsnorm"}
# Operations on each number that is normed: of both its square, the sum of squares, and the
# products with 1/σ and γ; of LayerNorm the mean's sum, its difference and β, too.
ARITHMETIC = {"layernorm": 7, "rmsnorm": 4}
TOKENS, WIDTHS = 1024, (128, 768)  # of the compared models, and of GPT-2 small
ROUNDS = 40
STEP = "a training step"


def measure(settings: Settings) -> Found:
    """Seconds by what is timed and by norm: of a norm forward and back, by width, and of a STEP."""
    found = {}
    for width in WIDTHS:
        found[f"a norm {width} wide"] = _medians(
            {name: partial(_pass, *_normed(settings, name, width)) for name in OPTIONS}
        )
    found[STEP] = _medians({name: _step(settings, name) for name in OPTIONS})
    return found


def _medians(arms: dict[str, Callable[[], object]]) -> dict[str, float]:
    taken = interleaved_durations(arms, ROUNDS)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def _normed(settings: Settings, name: str, width: int) -> tuple[nn.Module, Tensor, Tensor]:
    """A norm, what it is given, and the gradient that comes back to it."""
    draws = torch.Generator().manual_seed(0)
    x, back = (torch.randn(TOKENS, width, generator=draws).to(settings.device) for _ in range(2))
    norm = make_norm(config_of(OPTIONS[name]), width).to(settings.device)
    return norm, x.requires_grad_(), back


def _pass(norm: nn.Module, x: Tensor, back: Tensor) -> None:
    norm(x).backward(back)
    x.grad = None
    norm.zero_grad(set_to_none=True)


def _step(settings: Settings, name: str) -> Callable[[], object]:
    """The next step of a training on drawn tokens."""
    draws = torch.Generator().manual_seed(0)
    tokens = torch.randint(
        CONFIG.vocab_size, (BATCH_SIZE, CONFIG.context_length + 1), generator=draws
    )
    model = Model(config_of(OPTIONS[name])).to(settings.device)
    recipe = recipe_of(ROUNDS + WARMUP_STEPS, rate=1e-3, seed=0)
    return partial(next, Training(model, lambda step: tokens, recipe).losses())
