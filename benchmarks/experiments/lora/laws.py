"""L1, LoRA from B = 0: what the first optimiser steps add, against closed forms in the rank.

G (d, n) is the loss's gradient at a weight, γ the scale, η the rate, and A (r, n) has independent
entries of variance σ² and kurtosis κ. At B = 0 only B moves, by its gradient γGAᵀ:

| optimiser | ΔW after one step | E⟨−G, ΔW⟩             | E‖ΔW‖²                          |
|-----------|-------------------|-----------------------|---------------------------------|
| SGD       | −ηγ² GAᵀA         | ηγ²σ² r ‖G‖²          | η²γ⁴σ⁴ r(r + n − 2 + κ) ‖G‖²    |
| AdamW     | −ηγ sign(GAᵀ)A    | ηγσ r √(2/π) Σ‖gᵢ‖    | η²γ²σ² r(n + (r − 1)2/π) d      |

SGD's are exact for any such A: E(AᵀA) = rσ²I and E(AᵀA)² = r(r + n − 2 + κ)σ⁴I. AdamW's first step
is η times the sign of each entry, whatever its size; its two hold for a Gaussian A, whose aₚ along
the row gᵢ of G and across it are independent. Since signs forget γ, the gain grows with γr, where
SGD's grows with γ²r: where α/√r keeps SGD's constant, AdamW's grows by √r.

AdamW divides by |g| + ε, not by |g|: where γ is small and the gradient too, entries move by less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reference_model.lora import InitA

KURTOSIS: dict[InitA, float] = {"gaussian": 3.0, "kaiming_uniform": 1.8}


def deviation_squared(a: InitA, n: int) -> float:
    """σ² of A's entries: N(0, 1/n), or U(±1/√n)."""
    return 1 / n if a == "gaussian" else 1 / (3 * n)


@dataclass(frozen=True)
class FirstStep:
    """First-order gain ⟨−G, ΔW⟩ and squared norm ‖ΔW‖², of one matrix or of many draws each."""

    gain: Tensor
    squared_norm: Tensor


def sgd_first_step(gram: Tensor, a: Tensor) -> FirstStep:
    """Of each A in (draws, r, n), for η = γ = 1, from GᵀG (n, n): no (d, n) matrix is formed."""
    draws, rank, n = a.shape
    if rank <= n:
        low = (a.reshape(-1, n) @ gram).view(draws, rank, n) @ a.mT  # (draws, r, r), as is
        own = a @ a.mT
        return FirstStep(low.diagonal(dim1=1, dim2=2).sum(1), (low * own).sum((1, 2)))
    own = a.mT @ a  # (draws, n, n)
    return FirstStep((own * gram).sum((1, 2)), (own @ own * gram).sum((1, 2)))


def sgd_expected(gradient: Tensor, rank: int, a: InitA, rate: float, scale: float) -> FirstStep:
    """Mean over A of what SGD's first step adds, in closed form."""
    n, square = gradient.shape[1], gradient.square().sum()
    variance = deviation_squared(a, n)
    spread = rank * (rank + n - 2 + KURTOSIS[a])
    return FirstStep(
        rate * scale**2 * variance * rank * square,
        rate**2 * scale**4 * variance**2 * spread * square,
    )


def adamw_first_step(gradient: Tensor, a: Tensor, rate: float, scale: float) -> FirstStep:
    """Of each A in (draws, r, n): B moves by −η in the direction of its gradient's signs."""
    low = gradient @ a.mT  # (draws, d, r)
    update = low.sign() @ a  # (draws, d, n)
    return FirstStep(
        rate * scale * low.abs().sum((1, 2)), (rate * scale) ** 2 * update.square().sum((1, 2))
    )


def adamw_expected(gradient: Tensor, rank: int, rate: float, scale: float) -> FirstStep:
    """Mean over a Gaussian A of what AdamW's first step adds, in closed form."""
    d, n = gradient.shape
    variance = deviation_squared("gaussian", n)
    rows = gradient.norm(dim=1).sum()
    spread = rank * (n + (rank - 1) * 2 / math.pi)
    return FirstStep(
        rate * scale * math.sqrt(variance * 2 / math.pi) * rank * rows,
        torch.tensor((rate * scale) ** 2 * variance * spread * d),
    )
