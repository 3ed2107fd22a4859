"""L6: INT8 weights, and the norms that are left out of it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    as_found,
    experiment,
    experiment_of_cells,
    joined,
)
from benchmarks.experiments.int8.factorial import factorial, kinds_of_weights, losses_of
from benchmarks.instruments.perplexity import bits_per_byte, token_losses
from benchmarks.instruments.windows import Windows
from benchmarks.judging.stats import Estimate
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from benchmarks.subjects.outliers import AS_IT_IS, PLANTED, channels_of, model_with_outliers
from benchmarks.subjects.subject import Subject, subject_of
from reference_model.config import preset
from reference_model.parts import parts_with
from reference_model.quantization.grid import Grid, groups_fit
from reference_model.quantization.int8 import Product, packed_is_available, with_int8_linears
from reference_model.quantization.norms import NormScheme, with_int8_norms
from reference_model.quantization.rounding import with_rounded_linears

# Windows that are read, spread over all test plays; None: all of them.
WINDOWS: dict[Profile, int | None] = {"smoke": 24, "quick": 40, "full": None}

GRIDS = (
    Grid(),
    Grid(granularity="per tensor"),
    Grid(granularity="per group"),
    Grid(zero="asymmetric"),
    Grid(4, "per group"),
    Grid(4, "per channel"),
)


@experiment(
    "int8.norm-share", smoke=0.1, quick=0.1, full=0.1, of_any_model=True, as_run_elsewhere=True
)
def norm_share(settings: Settings) -> list[Measurement]:
    """Percent of GPT-2's parameters that belong to norms, counted on the built model.

    Of another subject, its own.
    """
    found = []
    sizes_of_gpt2 = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")
    with torch.device("meta"):
        models: dict[str, torch.nn.Module] = {n: Model(preset(n)) for n in sizes_of_gpt2}
    if not settings.of_reference:
        subject = subject_of(settings)
        models = {subject.title: subject.module()}
    for name, model in models.items():
        total = sum(parameter.numel() for parameter in model.parameters())
        norms = sum(
            parameter.numel()
            for part in parts_with(model, "norm")
            for parameter in part.module.parameters()
        )
        for metric, unit, value in (
            ("norm_share", "percent", 100 * norms / total),
            ("norm_parameters", "parameters", norms),
            ("parameters", "parameters", total),
        ):
            found.append(
                measured(
                    value,
                    claim="int8.norm-share",
                    metric=metric,
                    unit=unit,
                    direction="none",
                    choice="norm",
                    option="layernorm" if settings.of_reference else "norms",
                    parameters={"model": name},
                    source="counted",
                )
            )
    return found


def cells_of_weights(settings: Settings) -> list[Cell]:
    """A cell for each variant, and for each kind of weights of the factorial.

    Each reads the text without rounding once more, so that shorter profiles have them all in one.
    """
    if settings.profile != "full":
        return [Cell()]
    found = [Cell({"variant": name}, share=2) for name in weights_variants(settings)]
    if subject_of(settings).is_built_here:  # with caches of ours
        found += [Cell({"factorial": weights}, share=3) for weights in kinds_of_weights(settings)]
    return found


def weights_variants(settings: Settings) -> list[str]:
    """What the weights are held in: no rounding, grids by their names, products that take int8."""
    grids = {"smoke": GRIDS[:2], "quick": (*GRIDS[:2], GRIDS[4])}
    chosen = grids.get(settings.profile, GRIDS)
    if not settings.of_reference and not groups_fit(subject_of(settings).module()):
        chosen = tuple(grid for grid in chosen if grid.granularity != "per group")
    names = [settings.dtype, *(grid.name for grid in chosen)]
    if settings.profile != "smoke":
        names.append("int_mm")
        if settings.device == "cpu" and packed_is_available():
            names.append("packed")
    return names


def of_weights(settings: Settings, variant: str = "", factorial: str = "") -> Found:
    """Measurements of a variant, or of all; losses through all caches of a kind of weights."""
    if factorial:
        return losses_of(settings, factorial)
    names = [variant] if variant else weights_variants(settings)
    return as_found(m for name in names for m in _of_variant(settings, name))


@experiment_of_cells(
    "int8.weights-quality",
    cells=cells_of_weights,
    measure=of_weights,
    smoke=6,
    quick=20,
    full=650,
    of_any_model=True,
    as_run_elsewhere=True,
)
def weights_quality(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What rounding every linear's weights costs on held-out text, norms left out."""
    of_factorial = {str(p["factorial"]): losses for p, losses in found if "factorial" in p}
    measurements = joined(settings, [each for each in found if "factorial" not in each[0]])
    return measurements + (factorial(settings, of_factorial) if of_factorial else [])


def _of_variant(settings: Settings, name: str) -> Iterator[Measurement]:
    subject, windows = subject_of(settings), held_out_windows(settings)
    model, baseline = subject.module(), _baseline(settings)
    if name == settings.dtype:
        yield from _losses_as_it_is(subject, windows, baseline)
    elif name in (by_name := {grid.name: grid for grid in GRIDS}):
        grid = by_name[name]
        rounded, names = with_rounded_linears(model, grid)
        increase = loss_increase(model, rounded, names, windows, baseline)
        plain = grid in GRIDS[:2]
        labels: dict[str, Parameter] = {"granularity": grid.granularity}
        if not plain:  # beside the claim, which is about INT8 as it is usually meant
            labels |= {"bits": grid.bits, "zero": grid.zero}
        metric = "loss_increase" if plain else "loss_increase_of_other_grids"
        yield _of_int8("int8.weights-quality", increase, labels, metric)
    else:
        int8 = with_int8_linears(model, cast(Product, name)).model
        increase = _loss_of(int8, windows, baseline)
        labels = {"granularity": "per channel", "product": name}
        yield _of_int8("int8.weights-quality", increase, labels, "loss_increase_w8a8")


# Ways to quantise a norm, as claims.toml names them.
WAYS = {
    "gamma and beta per tensor": NormScheme(weights="int8"),
    "gamma, beta and input per tensor": NormScheme(weights="int8", input="int8"),
    "integer statistics": NormScheme(statistics="integer"),
}
# Channels that are planted, and how many times as large they are: γ's step is then so coarse that
# the other channels' γ of about 1 has one or two.
PLANTED_CHANNELS, STRENGTH = (3, 77), 128.0
COARSE = 1  # fractional bits of statistics that are known to be too few


def norm_cases() -> list[tuple[str, str]]:
    """Model and way.

    Known answers: with planted outliers γ and β per tensor do harm, and integers without enough
    fractional bits do.
    """
    return [
        *((model, way) for model in (AS_IT_IS, PLANTED) for way in WAYS),
        ("known to be coarse", f"integer statistics, {COARSE} fractional bits"),
    ]


def cells_of_norms(settings: Settings) -> list[Cell]:
    """A cell for each case in full, as of the weights."""
    if settings.profile != "full":
        return [Cell()]
    return [Cell({"model": model, "way": way}) for model, way in norm_cases()]


def of_norms(settings: Settings, model: str = "", way: str = "") -> Found:
    cases = [(model, way)] if model else norm_cases()
    return as_found(_of_norms(settings, *case) for case in cases)


@experiment_of_cells(
    "int8.norm-damage",
    cells=cells_of_norms,
    measure=of_norms,
    smoke=4,
    quick=14,
    full=450,
    of_any_model=True,
)
def norm_damage(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What each way to quantise the norms costs on the same text, all else as it is."""
    return joined(settings, found)


def _of_norms(settings: Settings, name: str, way: str) -> Measurement:
    subject = subject_of(settings)
    model = subject.model()
    if name == PLANTED:
        model = model_with_outliers(model, channels_of(model, PLANTED_CHANNELS), STRENGTH)
    elif name == AS_IT_IS:
        name = subject.label
    if way in WAYS:
        changed, _ = with_int8_norms(model, WAYS[way])
    else:
        changed, _ = with_int8_norms(model, WAYS["integer statistics"], COARSE)
    increase = _loss_of(changed, held_out_windows(settings), _baseline(settings))
    return _of_int8("int8.norm-damage", increase, {"way": way, "model": name})


def _loss_of(changed: torch.nn.Module, windows: Windows, baseline: NDArray[np.float64]) -> Estimate:
    """Nats per token by which ``changed`` is worse; ValueError where it is as good to the bit."""
    losses = token_losses(changed, windows)
    if np.array_equal(losses, baseline):
        raise ValueError("no loss changed, so that nothing was quantised")
    return windows.mean(losses - baseline)


def held_out_windows(settings: Settings) -> Windows:
    """Windows of the held-out text, as many as the profile reads; half of them by a large model."""
    subject, count = subject_of(settings), WINDOWS[settings.profile]
    if count is not None and subject.is_large:
        count //= 2
    return subject.windows(count, settings.seed)


def loss_increase(
    model: torch.nn.Module,
    rounded: torch.nn.Module,
    names: Sequence[str],
    windows: Windows,
    baseline: NDArray[np.float64],
) -> Estimate:
    """Nats per token by which ``rounded`` is worse than ``model``, whose losses are ``baseline``.

    Raises ValueError where rounding did not change each of the parameters ``names``, or changed
    another one: no difference would then mean nothing.
    """
    before = dict(model.named_parameters(remove_duplicate=False))
    after = dict(rounded.named_parameters(remove_duplicate=False))
    rounded_at = {before[name].data_ptr() for name in names}
    tied = {name for name, weight in before.items() if weight.data_ptr() in rounded_at}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    if changed != set(names) | tied:
        raise ValueError(f"rounding {sorted(set(names))} changed {sorted(changed)}")
    return windows.mean(token_losses(rounded, windows) - baseline)


@functools.cache
def _baseline(settings: Settings) -> NDArray[np.float64]:
    """Losses of the model as it is, (windows, T), with which both claims compare."""
    return token_losses(subject_of(settings).module(), held_out_windows(settings))


def _losses_as_it_is(
    subject: Subject, windows: Windows, losses: NDArray[np.float64]
) -> list[Measurement]:
    """Its loss in nats, and the same loss as perplexity and as bits per byte."""
    loss = windows.mean(losses)
    texts = subject.tokenizer.decode_batch(windows.targets.tolist())
    text_bytes = sum(len(text.encode()) for text in texts)
    bits_of_a_nat = bits_per_byte(losses.size, text_bytes)  # one nat per token, that is
    conversions: tuple[tuple[str, str, Callable[[float], float]], ...] = (
        ("held_out_loss", "nats/token", lambda nats: nats),
        ("perplexity", "1", math.exp),
        ("bits_per_byte", "bits/byte", lambda nats: nats * bits_of_a_nat),
    )
    return [
        measured(
            replace(
                loss,
                value=convert(loss.value),
                interval=(convert(loss.interval[0]), convert(loss.interval[1])),
            ),
            claim="int8.weights-quality",
            metric=metric,
            unit=unit,
            direction="lower",
            choice="number format",
            option=subject.in_dtype,
            parameters={"tokens": losses.size},
            source="checkpoint",
        )
        for metric, unit, convert in conversions
    ]


def _of_int8(
    claim: str,
    increase: Estimate,
    labels: dict[str, Parameter],
    metric: str = "loss_increase",
) -> Measurement:
    return measured(
        increase,
        claim=claim,
        metric=metric,
        unit="nats/token",
        direction="lower",
        choice="number format",
        option="int8",
        parameters=labels,
        source="checkpoint",
    )
