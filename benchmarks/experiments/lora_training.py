"""L1, LoRA in training: what the rank does to a fine-tune of the checkpoint on another text."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.experiment import Profile, Settings, experiment
from benchmarks.instruments.finetuning import (
    ALL_LINEARS,
    FineTune,
    Optimizer,
    Outcome,
    adapted,
    make_optimizer,
    optimizer_steps,
    outcome_of,
    topic_batches,
    topic_probe,
)
from benchmarks.instruments.topics import topics_source
from benchmarks.results import Measurement, Parameter, measured
from benchmarks.stats import crossed_mean_interval, mean_interval, unweighted_slopes
from reference_model.lora import LoRAConfig, LoRALinear, ScalingLaw, lora_linears
from reference_model.model import GPT
from reference_model.training import batch_loss

Array = NDArray[np.float64]

RANKS = (4, 16, 64, 256)
SCALINGS: dict[str, ScalingLaw] = {"alpha/r": "lora", "alpha/sqrt(r)": "rslora"}
SEEDS = 5

# The equal-rate comparison is at the middle one: AdamW's rate in the recipe that made the
# checkpoint. The span is what a trial with another seed, on validation text, needed for every
# rank's best rate to lie inside; it had shown by then that α/√r at rank 256 is past its best there.
LEARNING_RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
EQUAL_RATE = LEARNING_RATES[2]

# ---- lora.activation-stability

MARKS: dict[Profile, tuple[int, ...]] = {"smoke": (2,), "quick": (10,), "full": (10, 20, 40)}
MOMENT_SEEDS: dict[Profile, int] = {"smoke": 2, "quick": 3, "full": SEEDS}
MOMENT_BATCH: dict[Profile, tuple[int, int]] = {
    "smoke": (1, 32),
    "quick": (2, 64),
    "full": (4, 128),
}
# The theorem of the rsLoRA paper speaks of SGD: full runs show that case beside AdamW's.
MOMENT_RATES: dict[Optimizer, float] = {"adamw": EQUAL_RATE, "sgd": 0.01}


@experiment("lora.activation-stability", smoke=None, quick=20, full=900)
def activation_stability(settings: Settings) -> list[Measurement]:
    """Second moments of adapter output and input gradient along fine-tunes; exponents in the rank.

    The judged fine-tunes are AdamW's, all at one learning rate. One seed is one observation.

    The theorem is a limit, r → ∞ at a fixed width n, for SGD. There the gradient sent back after
    one step has a second moment of γ⁴ r(r + n − 2 + κ), as ‖ΔW‖² has: with α/√r its exponent is −1
    for r ≪ n, −0.84 over these ranks at n = 256. AdamW's step forgets γ, and falls less or grows.
    """
    profile = settings.profile
    marks, seeds, batch = MARKS[profile], MOMENT_SEEDS[profile], MOMENT_BATCH[profile]
    # A mean over more tokens has a smaller gradient, and another fine-tune is another number.
    of_batch: dict[str, Parameter] = {"batch_size": batch[0], "tokens": batch[1]}
    record = partial(
        measured,
        claim="lora.activation-stability",
        unit="1",
        direction="none",
        choice="scaling",
        source=topics_source(),
    )
    measurements = []
    for optimizer in ("adamw", "sgd") if profile == "full" else ("adamw",):
        prefix = "" if optimizer == "adamw" else f"{optimizer}_"
        for option, scaling in SCALINGS.items():
            seen = np.array(
                [
                    [
                        moments_along(
                            LoRAConfig(rank, scaling=scaling, targets=ALL_LINEARS),
                            optimizer,
                            settings.seed + index,
                            marks,
                            batch,
                        )
                        for rank in RANKS
                    ]
                    for index in range(seeds)
                ]
            )  # (seeds, ranks, marks, 2)
            for k, step in enumerate(marks):
                for index, quantity in enumerate(("output", "gradient")):
                    values, name = seen[:, :, k, index], f"{prefix}{quantity}_moment"
                    slopes = mean_interval(unweighted_slopes(RANKS, values))
                    labels: dict[str, Parameter] = {"step": step, **of_batch}
                    measurements.append(
                        record(slopes, metric=f"{name}_exponent", option=option, parameters=labels)
                    )
                    for column, rank in enumerate(RANKS):
                        found = mean_interval(values[:, column])
                        named: dict[str, Parameter] = {"rank": rank, **labels}
                        measurements.append(
                            record(found, metric=name, option=option, parameters=named)
                        )
    return measurements


def moments_along(
    config: LoRAConfig,
    optimizer: Optimizer,
    seed: int,
    marks: Sequence[int],
    batch: tuple[int, int],
) -> list[tuple[float, float]]:
    """`adapter_moments` on validation text after each number of steps in ``marks``."""
    model = adapted(config, seed)
    stepper = make_optimizer(model, optimizer, MOMENT_RATES[optimizer])
    size, length = batch
    probe = topic_probe(size, length)
    found = []
    steps = optimizer_steps(model, stepper, topic_batches(size, length, seed), max(marks))
    for step, _ in enumerate(steps, start=1):
        if step in marks:
            found.append(adapter_moments(model, probe))
    return found


def adapter_moments(model: GPT, batch: Tensor) -> tuple[float, float]:
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


# ---- lora.rank-pays

STEPS, WARMUP_STEPS, BATCH_SIZE, LENGTH = 32, 4, 4, 128
FOLDER = Path(__file__).parents[2] / "runs" / "lora_rank_pays"

Cell = tuple[str, int, float]  # scaling, rank, learning rate
Sweep = Mapping[Cell, list[Outcome]]  # an outcome for each seed


def sweep(folder: Path) -> Sweep:
    """All fine-tunes: those kept in ``folder``, and the others, which are run and kept there."""
    found: dict[Cell, list[Outcome]] = {}
    for seed in range(SEEDS):
        for option, scaling in SCALINGS.items():
            for rank in RANKS:
                for rate in LEARNING_RATES:
                    spec = FineTune(
                        scaling, rank, rate, seed, STEPS, WARMUP_STEPS, BATCH_SIZE, LENGTH
                    )
                    outcome = outcome_of(spec, folder)
                    found.setdefault((option, rank, rate), []).append(outcome)
    return found


@experiment("lora.rank-pays", smoke=None, quick=None, full=4500)
def rank_pays(settings: Settings) -> list[Measurement]:
    """Held-out loss by rank, at one learning rate and at each rank's best; goes on where it was."""
    return list(findings(sweep(FOLDER)))


def held_out(found: Sweep, cell: Cell) -> Array | None:
    """(seeds, windows), nats per token; None where a seed diverged."""
    losses = [outcome.held_out for outcome in found[cell]]
    return np.array(losses) if all(losses) else None


def best_rate(found: Sweep, option: str, rank: int) -> float:
    """Of the lowest validation loss, averaged over the seeds; held-out text has no say."""
    return min(
        (rate for of_option, of_rank, rate in found if (of_option, of_rank) == (option, rank)),
        key=lambda rate: statistics.fmean(o.validation_loss for o in found[option, rank, rate]),
    )


def findings(found: Sweep) -> Iterator[Measurement]:
    """What the fine-tunes say; differences are paired over seeds and windows of held-out text.

    ValueError where a fine-tune that is judged diverged.
    """
    record = partial(measured, claim="lora.rank-pays", choice="scaling", source=topics_source())
    tuned = {
        (option, rank): best_rate(found, option, rank) for option in SCALINGS for rank in RANKS
    }
    judged = {
        (option, rank, learning_rate): _judged(found, (option, rank, rate))
        for (option, rank), best in tuned.items()
        for learning_rate, rate in (("equal", EQUAL_RATE), ("tuned", best))
    }
    for (option, rank), rate in tuned.items():
        yield record(
            rate,
            metric="best_learning_rate",
            unit="1",
            direction="none",
            option=option,
            parameters={"rank": rank},
        )
    yield from _of_losses(partial(record, unit="nats/token"), judged)
    yield from _of_rates(partial(record, unit="nats/token"), found)
    yield from _of_costs(record, found)


def _judged(found: Sweep, cell: Cell) -> Array:
    losses = held_out(found, cell)
    if losses is None:
        raise ValueError(f"a fine-tune with {cell} diverged: there is no loss to judge")
    return losses


def _of_losses(
    record: Callable[..., Measurement], judged: Mapping[tuple[str, int, str], Array]
) -> Iterator[Measurement]:
    """The claim's gain; every rank's loss, its gain over the lowest rank, and α/√r's over α/r."""
    for (option, rank, learning_rate), losses in judged.items():
        labels: dict[str, Parameter] = {"rank": rank, "learning_rate": learning_rate}
        loss = crossed_mean_interval(losses)
        yield record(
            loss, metric="held_out_loss", option=option, direction="lower", parameters=labels
        )
        more = partial(record, option=option, direction="higher")
        gain = crossed_mean_interval(judged[option, RANKS[0], learning_rate] - losses)
        if rank == RANKS[-1]:
            named: dict[str, Parameter] = {"learning_rate": learning_rate, "seeds": len(losses)}
            yield more(gain, metric="loss_gain", parameters=named)
        if rank != RANKS[0]:
            yield more(gain, metric="gain_over_rank_4", parameters=labels)
        other = judged["alpha/r", rank, learning_rate]
        if option != "alpha/r":
            over = crossed_mean_interval(other - losses)
            yield more(over, metric="gain_over_alpha_r", parameters=labels)


def _of_rates(record: Callable[..., Measurement], found: Sweep) -> Iterator[Measurement]:
    """Loss at every rate, and rank 256's gain over rank 4 there: how far one rate decides it."""
    for (option, rank, rate), outcomes in found.items():
        losses = held_out(found, (option, rank, rate))
        if losses is None:
            continue
        labels: dict[str, Parameter] = {"rank": rank, "rate": rate}
        at_rate = partial(record, option=option)
        loss = crossed_mean_interval(losses)
        yield at_rate(loss, metric="loss_at_rate", direction="lower", parameters=labels)
        validation = mean_interval([outcome.validation_loss for outcome in outcomes])
        yield at_rate(
            validation, metric="validation_loss_at_rate", direction="lower", parameters=labels
        )
        lowest = held_out(found, (option, RANKS[0], rate))
        if rank == RANKS[-1] and lowest is not None:
            gain = crossed_mean_interval(lowest - losses)
            named: dict[str, Parameter] = {"rate": rate}
            yield at_rate(gain, metric="gain_at_rate", direction="higher", parameters=named)


def _of_costs(record: Callable[..., Measurement], found: Sweep) -> Iterator[Measurement]:
    """Trained share and optimiser state, counted; seconds per step, an observation for each seed.

    Costs do not depend on the scaling: α/r's fine-tunes stand for both.
    """
    for rank in RANKS:
        cells = [found["alpha/r", rank, rate] for rate in LEARNING_RATES]
        first = cells[0][0]
        seconds = [
            statistics.median(outcome.seconds_per_step for outcome in of_seed)
            for of_seed in zip(*cells, strict=True)
        ]
        share = 100 * first.trained_parameters / first.frozen_parameters
        for metric, unit, value, source in (
            ("trained_share", "percent", share, "counted"),
            ("optimizer_bytes", "bytes", first.optimizer_bytes, "counted"),
            ("seconds_per_step", "seconds", mean_interval(seconds), "clock"),
        ):
            yield record(
                value,
                metric=metric,
                unit=unit,
                direction="lower",
                option="both",
                parameters={"rank": rank},
                source=source,
            )
