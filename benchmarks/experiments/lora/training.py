"""L1, LoRA in training: how large adapters' outputs and gradients are along fine-tunes, by rank."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from torch import Tensor

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    experiment_of_cells,
)
from benchmarks.instruments.finetuning import (
    ALL_LINEARS,
    Optimizer,
    adapted,
    adapter_training,
    at_constant_rate,
    topic_batches,
    topic_probe,
)
from benchmarks.instruments.rank_sweep import RANKS
from benchmarks.instruments.topics import topics_source
from benchmarks.judging.stats import mean_interval, unweighted_slopes
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from reference_model.lora import LoRAConfig, LoRALinear, ScalingLaw, lora_linears
from reference_model.training import batch_loss

SCALINGS: dict[str, ScalingLaw] = {"alpha/r": "lora", "alpha/sqrt(r)": "rslora"}
SEEDS = 5

EQUAL_RATE = 3e-3  # AdamW's rate in the recipe that made the checkpoint

MARKS: dict[Profile, tuple[int, ...]] = {"smoke": (2,), "quick": (10,), "full": (10, 20, 40)}
MOMENT_SEEDS: dict[Profile, int] = {"smoke": 2, "quick": 3, "full": SEEDS}
MOMENT_BATCH: dict[Profile, tuple[int, int]] = {
    "smoke": (1, 32),
    "quick": (2, 64),
    "full": (4, 128),
}
# The theorem of the rsLoRA paper speaks of SGD: full runs show that case beside AdamW's.
MOMENT_RATES: dict[Optimizer, float] = {"adamw": EQUAL_RATE, "sgd": 0.01}


def cells_of_moments(settings: Settings) -> list[Cell]:
    """A cell for each optimiser, scaling and seed: fine-tunes at every rank."""
    optimizers: Sequence[Optimizer] = ("adamw", "sgd") if settings.profile == "full" else ("adamw",)
    return [
        Cell({"optimizer": optimizer, "scaling": option, "seed": settings.seed + index})
        for optimizer in optimizers
        for option in SCALINGS
        for index in range(MOMENT_SEEDS[settings.profile])
    ]


def of_moments(settings: Settings, optimizer: Optimizer, scaling: str, seed: int) -> Found:
    """(ranks, marks, 2)."""
    marks, batch = MARKS[settings.profile], MOMENT_BATCH[settings.profile]
    configs = [LoRAConfig(r, scaling=SCALINGS[scaling], targets=ALL_LINEARS) for r in RANKS]
    return [
        moments_along(config, optimizer, seed, marks, batch, settings.device) for config in configs
    ]


@experiment_of_cells(
    "lora.activation-stability",
    cells=cells_of_moments,
    measure=of_moments,
    smoke=None,
    quick=20,
    full=900,
)
def activation_stability(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Second moments of adapter output and input gradient along fine-tunes; exponents in the rank.

    The judged fine-tunes are AdamW's, all at one learning rate. One seed is one observation.

    The theorem is a limit, r → ∞ at a fixed width n, for SGD. There the gradient sent back after
    one step has a second moment of γ⁴ r(r + n − 2 + κ), as ‖ΔW‖² has: with α/√r its exponent is −1
    for r ≪ n, −0.84 over these ranks at n = 256. AdamW's step forgets γ, and falls less or grows.
    """
    size, tokens = MOMENT_BATCH[settings.profile]
    # A mean over more tokens has a smaller gradient, and another fine-tune is another number.
    of_batch: dict[str, Parameter] = {"batch_size": size, "tokens": tokens}
    record = partial(
        measured,
        claim="lora.activation-stability",
        unit="1",
        direction="none",
        choice="scaling",
        source=topics_source(),
    )
    seeds: dict[tuple[str, str], list[Found]] = {}
    for labels, of_seed in found:
        arm = str(labels["optimizer"]), str(labels["scaling"])
        seeds.setdefault(arm, []).append(of_seed)
    measurements = []
    for (optimizer, option), of_seeds in seeds.items():
        prefix = "" if optimizer == "adamw" else f"{optimizer}_"
        seen = np.array(of_seeds)  # (seeds, ranks, marks, 2)
        for k, step in enumerate(MARKS[settings.profile]):
            for index, quantity in enumerate(("output", "gradient")):
                values, name = seen[:, :, k, index], f"{prefix}{quantity}_moment"
                slopes = mean_interval(unweighted_slopes(RANKS, values))
                at_step: dict[str, Parameter] = {"step": step, **of_batch}
                measurements.append(
                    record(slopes, metric=f"{name}_exponent", option=option, parameters=at_step)
                )
                for column, rank in enumerate(RANKS):
                    mean = mean_interval(values[:, column])
                    named: dict[str, Parameter] = {"rank": rank, **at_step}
                    measurements.append(record(mean, metric=name, option=option, parameters=named))
    return measurements


def moments_along(
    config: LoRAConfig,
    optimizer: Optimizer,
    seed: int,
    marks: Sequence[int],
    batch: tuple[int, int],
    device: str = "cpu",
) -> list[tuple[float, float]]:
    """`adapter_moments` on validation text after each number of steps in ``marks``."""
    model = adapted(config, seed, device=device)
    size, length = batch
    recipe = at_constant_rate(MOMENT_RATES[optimizer], max(marks))
    training = adapter_training(model, topic_batches(size, length, seed), recipe, optimizer)
    probe = topic_probe(size, length).to(device)
    found = []
    for _ in training.losses():
        if training.step in marks:
            found.append(adapter_moments(model, probe))
    return found


def adapter_moments(model: Model, batch: Tensor) -> tuple[float, float]:
    """Mean squares of s·BAx and of s·AᵀBᵀg, g the loss's gradient at the linear's output.

    Over tokens and coordinates of each adapted linear, then the geometric mean over the linears.
    ``batch`` is (B, T + 1); the loss is a mean over all its tokens.
    """
    inputs: dict[str, Tensor] = {}
    gradients: dict[str, Tensor] = {}

    def note(name: str, x: Tensor, y: Tensor) -> None:
        inputs[name] = x.detach()
        y.register_hook(lambda gradient: gradients.__setitem__(name, gradient))

    linears = lora_linears(model)
    hooks = [
        linear.register_forward_hook(lambda _, x, y, name=name: note(name, x[0], y))
        for name, linear in linears.items()
    ]
    try:
        batch_loss(model, batch).backward()
    finally:
        for hook in hooks:
            hook.remove()
        model.zero_grad(set_to_none=True)
    outputs = [mean_square(inputs[name] @ delta.T) for name, delta in updates(linears)]
    returned = [mean_square(gradients[name] @ delta) for name, delta in updates(linears)]
    return statistics.geometric_mean(outputs), statistics.geometric_mean(returned)


def updates(linears: Mapping[str, LoRALinear]) -> Iterator[tuple[str, Tensor]]:
    """Name and ΔW = s·BA (d, n) of each linear."""
    for name, linear in linears.items():
        yield name, linear.delta_weight()


def mean_square(values: Tensor) -> float:
    return float(values.square().mean())
