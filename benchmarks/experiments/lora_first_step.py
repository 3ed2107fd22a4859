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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.experiment import Profile, Settings, experiment
from benchmarks.experiments.lora_training import EQUAL_RATE, SCALINGS
from benchmarks.instruments.finetuning import (
    Optimizer,
    adapted,
    make_optimizer,
    optimizer_steps,
    topic_batches,
)
from benchmarks.instruments.topics import topics_source
from benchmarks.results import Measurement, Parameter, measured
from benchmarks.stats import Estimate, mean_interval, unweighted_slopes
from reference_model.checkpoints import load_reference
from reference_model.costs import LoRATarget
from reference_model.lora import Adapter, InitA, LoRAConfig, lora_linears
from reference_model.model import GPT
from reference_model.training import Batches, batch_loss

CLAIM = "lora.real-init"
# Those whose input is as wide as the model, n = 256: ranks reach 4n.
TARGETS: tuple[LoRATarget, ...] = ("query", "key", "value", "attention_output", "mlp_in")
RANKS: dict[Profile, list[int]] = {
    "smoke": [1, 32, 1024],
    "quick": [4**i for i in range(6)],
    "full": [2**i for i in range(11)],  # 1 … 1024 = 4n
}
KURTOSIS: dict[InitA, float] = {"gaussian": 3.0, "kaiming_uniform": 1.8}
ALPHA, RATE = 16.0, 0.1  # of SGD; the ratios do not depend on them
BATCH_SIZE, LENGTH = 4, 128
# One draw is one A for every adapted matrix of the model. Its variance falls as 1/r.
DRAWS_AT_RANK_1: dict[Profile, int] = {"smoke": 512, "quick": 4096, "full": 16384}
LEAST_DRAWS: dict[Profile, int] = {"smoke": 8, "quick": 16, "full": 64}
STEP_RANKS: dict[Profile, tuple[int, ...]] = {
    "smoke": (16,),
    "quick": (1, 256),
    "full": (1, 16, 256, 1024),
}
EPSILON = 1e-8  # AdamW's
ADAMW_RANKS = (4, 16, 64, 256)
LEAST_ADAMW_DRAWS = 32  # with eight, Student's interval missed 1 at one rank of four

RATES: dict[Optimizer, float] = {"sgd": RATE, "adamw": EQUAL_RATE}


def deviation_squared(a: InitA, n: int) -> float:
    """σ² of A's entries: N(0, 1/n), or U(±1/√n)."""
    return 1 / n if a == "gaussian" else 1 / (3 * n)


def gradients(model: GPT, batch: Tensor) -> list[Tensor]:
    """G (d, n) of every slice that TARGETS adapts, in the order of the adapters."""
    model.requires_grad_(True)
    batch_loss(model, batch).backward()
    found: list[Tensor] = []
    for layer in range(model.config.n_layer):
        for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc"):
            gradient = model.get_parameter(f"h.{layer}.{name}.weight").grad
            assert gradient is not None
            found += gradient.chunk(3) if name == "attn.c_attn" else [gradient]
    model.zero_grad(set_to_none=True)
    return found


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


def draws_of(a: InitA, rank: int, draws: int, n: int, generator: torch.Generator) -> Tensor:
    """(draws, r, n), by the adapters' own initialiser; neither init depends on the rank."""
    adapter = Adapter(slice(0, 1), draws * rank, n, torch.device("cpu"), torch.float32)
    adapter.initialize(LoRAConfig(draws * rank, init_a=a), generator)
    return adapter.A.detach().view(draws, rank, n)


def update_after_one_step(
    config: LoRAConfig, optimizer: Optimizer, batches: Batches, seed: int
) -> list[tuple[Tensor, Tensor]]:
    """What a real optimiser makes of real adapters, float64: A and ΔW of each slice."""
    model = adapted(config, seed, torch.float64)
    for _ in optimizer_steps(model, make_optimizer(model, optimizer, RATES[optimizer]), batches, 1):
        pass
    return [(part.A.detach(), update) for part, update in updates_of(model)]


def updates_of(model: GPT) -> list[tuple[Adapter, Tensor]]:
    """Each adapter with its ΔW (d, n), in the order of `gradients`."""
    found: list[tuple[Adapter, Tensor]] = []
    for linear in lora_linears(model).values():
        delta = linear.delta_weight()
        found += [(part, delta[part.outputs]) for part in linear.adapters]  # type: ignore[misc,index]
    return found


@experiment(CLAIM, smoke=5, quick=15, full=900)
def real_init(settings: Settings) -> list[Measurement]:
    """First-step gain and norm over their closed forms, by rank, A and scaling; then k steps.

    The intervals of a metric hold together. What AdamW does, and later steps, are shown beside it.
    """
    batches = topic_batches(BATCH_SIZE, LENGTH, settings.seed)
    exact = gradients(load_reference(torch.float64), batches(0))
    found = [gradient.float() for gradient in exact]  # plenty for a ratio within 2 %
    measurements = [
        *_starts(settings),
        *_ratios(settings, found),
        *_real_steps(settings, exact, batches),
        *_adamw_ratios(settings, found),
    ]
    if settings.profile == "full":
        measurements += later_steps(settings.seed)
    return measurements


def _record(
    found: float | Estimate,
    metric: str,
    option: str,
    parameters: Mapping[str, Parameter],
    unit: str = "1",
) -> Measurement:
    return measured(
        found,
        claim=CLAIM,
        metric=metric,
        unit=unit,
        direction="none",
        choice="scaling",
        option=option,
        parameters=parameters,
        source=topics_source(),
    )


def _starts(settings: Settings) -> Iterator[Measurement]:
    """‖ΔW‖ of fresh adapters."""
    for option, scaling in SCALINGS.items():
        for rank in STEP_RANKS[settings.profile]:
            model = adapted(LoRAConfig(rank, ALPHA, scaling, TARGETS), settings.seed)
            norm = update_norm(model)
            yield _record(norm, "update_norm", option, {"rank": rank, "step": 0})


def update_norm(model: GPT) -> float:
    """‖ΔW‖ over all adapted linears together."""
    return math.sqrt(
        sum(float(lin.delta_weight().square().sum()) for lin in lora_linears(model).values())
    )


def _ratios(settings: Settings, found: Sequence[Tensor]) -> Iterator[Measurement]:
    """SGD's first step over its closed form, mean over the matrices: one draw, one observation."""
    ranks = RANKS[settings.profile]
    level = 1 - 0.05 / (len(ranks) * len(KURTOSIS))
    generator = torch.Generator().manual_seed(settings.seed)
    grams = [gradient.mT @ gradient for gradient in found]
    for a in KURTOSIS:
        for rank in ranks:
            least = LEAST_DRAWS[settings.profile]
            draws = least + DRAWS_AT_RANK_1[settings.profile] // rank
            steps = [
                sgd_first_step(gram, draws_of(a, rank, draws, len(gram), generator))
                for gram in grams
            ]
            # The same draws for both scalings, which only multiply them.
            for option, scaling in SCALINGS.items():
                scale = LoRAConfig(rank, ALPHA, scaling).scale
                ratios = []
                for gradient, step in zip(found, steps, strict=True):
                    expected = sgd_expected(gradient, rank, a, RATE, scale)
                    gain = RATE * scale**2 * step.gain / expected.gain
                    squared_norm = RATE**2 * scale**4 * step.squared_norm / expected.squared_norm
                    ratios.append(FirstStep(gain, squared_norm))
                yield from _mean_ratios(ratios, "first_step", option, rank, a, level)


def _mean_ratios(
    ratios: Sequence[FirstStep], prefix: str, option: str, rank: int, a: InitA, level: float
) -> Iterator[Measurement]:
    """Ratios of each matrix (draws,), averaged over the matrices."""
    labels: dict[str, Parameter] = {"rank": rank, "a": a}
    for kind, of_matrices in (
        ("gain", [ratio.gain for ratio in ratios]),
        ("norm", [ratio.squared_norm for ratio in ratios]),
    ):
        found = mean_interval(torch.stack(of_matrices).mean(dim=0).numpy(), level)
        yield _record(found, f"{prefix}_{kind}_ratio", option, labels)


def _adamw_ratios(settings: Settings, found: Sequence[Tensor]) -> Iterator[Measurement]:
    """AdamW's first step over its closed form, Gaussian A; the scale multiplies both alike."""
    level = 1 - 0.05 / len(ADAMW_RANKS)
    generator = torch.Generator().manual_seed(settings.seed)
    for rank in ADAMW_RANKS:
        draws = max(LEAST_ADAMW_DRAWS, DRAWS_AT_RANK_1[settings.profile] // (8 * rank))
        ratios = []
        for gradient in found:
            drawn = draws_of("gaussian", rank, draws, gradient.shape[1], generator)
            step = adamw_first_step(gradient, drawn, EQUAL_RATE, ALPHA)
            expected = adamw_expected(gradient, rank, EQUAL_RATE, ALPHA)
            ratios.append(
                FirstStep(step.gain / expected.gain, step.squared_norm / expected.squared_norm)
            )
        yield from _mean_ratios(ratios, "adamw_first_step", "constant", rank, "gaussian", level)


def _real_steps(
    settings: Settings, found: Sequence[Tensor], batches: Batches
) -> Iterator[Measurement]:
    """The largest deviation of a real step's ΔW from the formula's, over the formula's norm.

    And that of AdamW's from the same with ε = 0, which moves every entry by η.
    """
    for option, scaling in SCALINGS.items():
        for rank in STEP_RANKS[settings.profile]:
            config = LoRAConfig(rank, ALPHA, scaling, TARGETS)
            labels: dict[str, Parameter] = {"rank": rank}
            for optimizer in get_args(Optimizer):
                stepped = update_after_one_step(config, optimizer, batches, settings.seed)
                worst = largest_deviation(found, stepped, config.scale, optimizer, EPSILON)
                named = {**labels, "optimizer": optimizer}
                yield _record(worst, "step_deviation", option, named)
            # The last optimiser is AdamW.
            worst = largest_deviation(found, stepped, config.scale, "adamw", 0.0)
            yield _record(worst, "epsilon_deviation", option, labels)


def largest_deviation(
    found: Sequence[Tensor],
    stepped: Sequence[tuple[Tensor, Tensor]],
    scale: float,
    optimizer: Optimizer,
    epsilon: float,
) -> float:
    """Over all matrices, ‖ΔW − formula‖/‖formula‖ of A and ΔW after one real step."""
    worst = 0.0
    for gradient, (a, update) in zip(found, stepped, strict=True):
        of_b = scale * gradient @ a.T
        moved = of_b if optimizer == "sgd" else of_b / (of_b.abs() + epsilon)
        formula = -RATES[optimizer] * scale * moved @ a
        worst = max(worst, float((update - formula).norm() / formula.norm()))
    return worst


# ---- later steps

LATER = (1, 2, 5, 10, 20)
SEEDS = 5


def later_steps(
    seed: int, seeds: int = SEEDS, marks: Sequence[int] = LATER, ranks: Sequence[int] = ADAMW_RANKS
) -> Iterator[Measurement]:
    """‖ΔW‖ and ⟨−G, ΔW⟩, G that of the start, after k steps; and their exponents in the rank.

    Exponents are least-squares slopes over the ranks, an observation for each seed. SGD's closed
    form has no single one across r = n. A gain that is not positive for all has none.
    """
    own_seeds = range(seed, seed + seeds)
    starts = {
        own: gradients(load_reference(), topic_batches(BATCH_SIZE, LENGTH, own)(0))
        for own in own_seeds
    }
    for optimizer in get_args(Optimizer):
        for option, scaling in SCALINGS.items():
            seen = np.array(
                [
                    [
                        walk(
                            LoRAConfig(rank, ALPHA, scaling, TARGETS), optimizer, own, start, marks
                        )
                        for rank in ranks
                    ]
                    for own, start in starts.items()
                ]
            )  # (seeds, ranks, marks, 2)
            for k, mark in enumerate(marks):
                labels: dict[str, Parameter] = {"optimizer": optimizer, "step": mark}
                for index, rank in enumerate(ranks):
                    norms = mean_interval(np.sqrt(seen[:, index, k, 1]))
                    yield _record(norms, "update_norm", option, {"rank": rank, **labels})
                for name, values in zip(("gain", "squared_norm"), seen[:, :, k].T, strict=True):
                    if (values > 0).all():
                        slopes = unweighted_slopes(ranks, values.T)
                        found = mean_interval(slopes)
                        yield _record(found, f"{name}_exponent_after_steps", option, labels)


def walk(
    config: LoRAConfig,
    optimizer: Optimizer,
    seed: int,
    start: Sequence[Tensor],
    marks: Sequence[int],
) -> list[tuple[float, float]]:
    """Gain and squared norm after each number of steps in ``marks``, of one fine-tune."""
    model = adapted(config, seed)
    stepper = make_optimizer(model, optimizer, RATES[optimizer])
    found = []
    steps = optimizer_steps(model, stepper, topic_batches(BATCH_SIZE, LENGTH, seed), max(marks))
    for step, _ in enumerate(steps, start=1):
        if step in marks:
            updates = [update for _, update in updates_of(model)]
            pairs = zip(start, updates, strict=True)
            gain = -sum(float((gradient * update).sum()) for gradient, update in pairs)
            found.append((gain, sum(float(update.square().sum()) for update in updates)))
    return found
