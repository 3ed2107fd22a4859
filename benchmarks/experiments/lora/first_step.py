"""L1, LoRA from B = 0: what the first optimiser steps add, against the laws of `lora_laws`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    as_found,
    experiment_of_cells,
    joined,
)
from benchmarks.experiments.lora.laws import (
    KURTOSIS,
    FirstStep,
    adamw_expected,
    adamw_first_step,
    sgd_expected,
    sgd_first_step,
)
from benchmarks.experiments.lora.training import EQUAL_RATE, SCALINGS
from benchmarks.instruments.finetuning import (
    Optimizer,
    adapted,
    adapter_training,
    at_constant_rate,
    topic_batches,
)
from benchmarks.instruments.topics import topics_source
from benchmarks.judging.stats import Estimate, mean_interval, unweighted_slopes
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from reference_model.checkpoints import load_reference
from reference_model.costs import LoRATarget
from reference_model.lora import Adapter, InitA, LoRAConfig, lora_linears
from reference_model.parts import parts_of
from reference_model.training import Batches, batch_loss

CLAIM = "lora.real-init"
# Those whose input is as wide as the model, n = 256: ranks reach 4n.
TARGETS: tuple[LoRATarget, ...] = ("query", "key", "value", "attention_output", "mlp_in")
RANKS: dict[Profile, list[int]] = {
    "smoke": [1, 32, 1024],
    "quick": [4**i for i in range(6)],
    "full": [2**i for i in range(11)],  # 1 … 1024 = 4n
}
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

# Parts of the first step, and what each takes.
SHARES = {"starts": 3, "ratios": 70, "real steps": 20, "AdamW's ratios": 20}

RATES: dict[Optimizer, float] = {"sgd": RATE, "adamw": EQUAL_RATE}


def gradients(model: Model, batch: Tensor) -> list[Tensor]:
    """G (d, n) of every slice that TARGETS adapts, in the order of the adapters."""
    model.requires_grad_(True)
    batch_loss(model, batch.to(next(model.parameters()).device)).backward()
    found: list[Tensor] = []
    for part in parts_of(model):
        if part.role in TARGETS:
            gradient = part.module.get_parameter("weight").grad
            assert gradient is not None
            found.append(gradient[part.outputs])
    model.zero_grad(set_to_none=True)
    return found


def draws_of(a: InitA, rank: int, draws: int, n: int, generator: torch.Generator) -> Tensor:
    """(draws, r, n), by the adapters' own initialiser; neither init depends on the rank."""
    adapter = Adapter(slice(0, 1), draws * rank, n, torch.device("cpu"), torch.float32)
    adapter.initialize(LoRAConfig(draws * rank, init_a=a), generator)
    return adapter.A.detach().view(draws, rank, n)


def update_after_one_step(
    config: LoRAConfig, optimizer: Optimizer, batches: Batches, seed: int, device: str = "cpu"
) -> list[tuple[Tensor, Tensor]]:
    """What a real optimiser makes of real adapters, float64: A and ΔW of each slice."""
    model = adapted(config, seed, torch.float64, device)
    recipe = at_constant_rate(RATES[optimizer], steps=1)
    for _ in adapter_training(model, batches, recipe, optimizer).losses():
        pass
    return [(part.A.detach(), update) for part, update in updates_of(model)]


def updates_of(model: Model) -> list[tuple[Adapter, Tensor]]:
    """Each adapter with its ΔW (d, n), in the order of `gradients`."""
    found: list[tuple[Adapter, Tensor]] = []
    for linear in lora_linears(model).values():
        delta = linear.delta_weight()
        found += [(part, delta[part.outputs]) for part in linear.adapters]  # type: ignore[misc,index]
    return found


def cells(settings: Settings) -> list[Cell]:
    """In full a cell for each part of the first step, and for each seed of the later ones.

    Shorter profiles have all parts in one, for which the gradients are taken once.
    """
    if settings.profile != "full":
        return [Cell(memory=2 * GIGABYTE)]
    seeds = range(settings.seed, settings.seed + SEEDS)
    return [
        *(Cell({"part": part}, share, memory=2 * GIGABYTE) for part, share in SHARES.items()),
        *(Cell({"part": "later steps", "seed": seed}, share=95) for seed in seeds),
    ]


def of_a_cell(settings: Settings, part: str = "", seed: int = 0) -> Found:
    """Measurements of a part, or of all; what later steps add, of one seed."""
    if part == "later steps":
        return walks(seed, device=settings.device)
    batches = topic_batches(BATCH_SIZE, LENGTH, settings.seed)
    exact = gradients(load_reference(torch.float64).to(settings.device), batches(0))
    found = [gradient.float() for gradient in exact]  # plenty for a ratio within 2 %
    parts = {
        "starts": lambda: _starts(settings),
        "ratios": lambda: _ratios(settings, found),
        "real steps": lambda: _real_steps(settings, exact, batches),
        "AdamW's ratios": lambda: _adamw_ratios(settings, found),
    }
    return as_found(m for name in ([part] if part else parts) for m in parts[name]())


@experiment_of_cells(CLAIM, cells=cells, measure=of_a_cell, smoke=5, quick=15, full=600)
def real_init(settings: Settings, found: CellsFound) -> list[Measurement]:
    """First-step gain and norm over their closed forms, by rank, A and scaling; then k steps.

    The intervals of a metric hold together. What AdamW does, and later steps, are shown beside it.
    """
    later = [of_seed for labels, of_seed in found if labels.get("part") == "later steps"]
    measurements = joined(settings, found[: len(found) - len(later)])
    return measurements + (list(later_steps(later)) if later else [])


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
            config = LoRAConfig(rank, ALPHA, scaling, TARGETS)
            model = adapted(config, settings.seed, device=settings.device)
            norm = update_norm(model)
            yield _record(norm, "update_norm", option, {"rank": rank, "step": 0})


def update_norm(model: Model) -> float:
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
                sgd_first_step(gram, draws_of(a, rank, draws, len(gram), generator).to(gram.device))
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
        found = mean_interval(torch.stack(of_matrices).mean(dim=0).cpu().numpy(), level)
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
            step = adamw_first_step(gradient, drawn.to(gradient.device), EQUAL_RATE, ALPHA)
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
                stepped = update_after_one_step(
                    config, optimizer, batches, settings.seed, settings.device
                )
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


def walks(
    seed: int,
    marks: Sequence[int] = LATER,
    ranks: Sequence[int] = ADAMW_RANKS,
    device: str = "cpu",
) -> list[list[list[list[tuple[float, float]]]]]:
    """`walk` of one seed at each rank: (optimisers, scalings, ranks, marks, 2)."""
    start = gradients(load_reference().to(device), topic_batches(BATCH_SIZE, LENGTH, seed)(0))
    return [
        [
            [
                walk(LoRAConfig(rank, ALPHA, scaling, TARGETS), optimizer, seed, start, marks)
                for rank in ranks
            ]
            for scaling in SCALINGS.values()
        ]
        for optimizer in get_args(Optimizer)
    ]


def later_steps(
    found: Sequence[Found], marks: Sequence[int] = LATER, ranks: Sequence[int] = ADAMW_RANKS
) -> Iterator[Measurement]:
    """‖ΔW‖ and ⟨−G, ΔW⟩, G that of the start, after k steps; and their exponents in the rank.

    Of the `walks` of each seed. Exponents are least-squares slopes over the ranks, an observation
    for each seed. SGD's closed form has no single one across r = n. A gain that is not positive for
    all has none.
    """
    of_seeds = np.array(found)  # (seeds, optimisers, scalings, ranks, marks, 2)
    for row, optimizer in enumerate(get_args(Optimizer)):
        for column, option in enumerate(SCALINGS):
            seen = of_seeds[:, row, column]  # (seeds, ranks, marks, 2)
            for k, mark in enumerate(marks):
                labels: dict[str, Parameter] = {"optimizer": optimizer, "step": mark}
                for index, rank in enumerate(ranks):
                    norms = mean_interval(np.sqrt(seen[:, index, k, 1]))
                    yield _record(norms, "update_norm", option, {"rank": rank, **labels})
                for name, values in zip(("gain", "squared_norm"), seen[:, :, k].T, strict=True):
                    if (values > 0).all():
                        slopes = unweighted_slopes(ranks, values.T)
                        exponent = mean_interval(slopes)
                        yield _record(exponent, f"{name}_exponent_after_steps", option, labels)


def walk(
    config: LoRAConfig,
    optimizer: Optimizer,
    seed: int,
    start: Sequence[Tensor],
    marks: Sequence[int],
) -> list[tuple[float, float]]:
    """Gain and squared norm after each number of steps in ``marks``, of one fine-tune."""
    model = adapted(config, seed, device=start[0].device.type)
    batches = topic_batches(BATCH_SIZE, LENGTH, seed)
    recipe = at_constant_rate(RATES[optimizer], max(marks))
    training = adapter_training(model, batches, recipe, optimizer)
    found = []
    for _ in training.losses():
        if training.step in marks:
            updates = [update for _, update in updates_of(model)]
            pairs = zip(start, updates, strict=True)
            gain = -sum(float((gradient * update).sum()) for gradient, update in pairs)
            found.append((gain, sum(float(update.square().sum()) for update in updates)))
    return found
