"""L5: what TurboQuant loses, on vectors whose law is known and on real ones."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import get_args

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from benchmarks.experiments.experiment import (
    GIGABYTE,
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
from benchmarks.experiments.turboquant.kv_vectors import keys_and_values, with_outliers
from benchmarks.experiments.turboquant.memory import PACKED
from benchmarks.judging.stats import Estimate, geometric_mean_ratio_interval, mean_interval, scaled
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.subject import subject_of
from reference_model.quantization.baselines import AbsmaxBlocks
from reference_model.quantization.codebook import (
    coordinate_cdf,
    lloyd_max,
    lower_bound,
    upper_bound,
)
from reference_model.quantization.codec import Codec
from reference_model.quantization.rotation import haar
from reference_model.quantization.turboquant import (
    Levels,
    Projection,
    Scale,
    TurboQuant,
    TurboQuantProd,
)

BITS = (1, 2, 3, 4)
SCALES, PROJECTIONS = get_args(Scale), get_args(Projection)
SEEDS = 5

# ---- the law of a coordinate

# Vectors, each with a rotation of its own: 1.36/√n is how far a true law strays from itself.
ROTATIONS: dict[Profile, int] = {"smoke": 400, "quick": 20_000, "full": 40_000}
DKW = 1.3581  # √(ln(2/0.05)/2): Dvoretzky, Kiefer, Wolfowitz and Massart, at 95 %


@experiment(
    "turboquant.beta", smoke=1.2, quick=8, full=20, of_any_model=True, as_run_elsewhere=True
)
def beta(settings: Settings) -> list[Measurement]:
    """Kolmogorov and Smirnov's distance of one coordinate per vector to the Beta law.

    Coordinates of one vector depend on each other, and so do vectors under one rotation: each has
    a rotation of its own, and gives one coordinate. Unrotated ones are the known absence.
    """
    count, D = ROTATIONS[settings.profile], subject_of(settings).width
    rows = torch.stack([haar(D, settings.seed * count + i)[0] for i in range(count)])  # (n, D)
    keys, values = keys_and_values(settings, min(count, 20_000))
    one_hot = torch.zeros(count, D, dtype=torch.float64)
    one_hot[:, 0] = 1
    vectors = {"one coordinate alone": one_hot, "keys": keys, "values": values}
    vectors["keys with outliers"] = with_outliers(keys)
    found = []
    for name, x in vectors.items():
        unit = x.double() / x.double().norm(dim=-1, keepdim=True)
        turned = (rows[: len(unit)] * unit).sum(-1)
        half = DKW / math.sqrt(len(unit))
        distance = _distance(turned, D)
        interval = (max(0.0, distance - half), distance + half)
        width: dict[str, Parameter] = {"width": D}
        # Unrotated vectors of one text depend on each other: of these vectors, and no more is said.
        for metric, value, labels in (
            ("distance", Estimate(distance, interval, len(unit)), width),
            ("distance_unrotated", _distance(unit[:, 0], D), {**width, "vectors": len(unit)}),
        ):
            found.append(
                measured(
                    value,
                    claim="turboquant.beta",
                    metric=metric,
                    unit="1",
                    direction="none",
                    choice="vectors",
                    option=name,
                    parameters=labels,
                    source="simulation" if x is one_hot else "checkpoint",
                )
            )
    return found


def _distance(coordinates: Tensor, width: int) -> float:
    # As ks_1samp(coordinates, cdf), whose types know no vectorised law: F(x) is uniform.
    return float(stats.kstest(coordinate_cdf(coordinates.numpy(), width), "uniform").statistic)


# ---- distortion

VECTORS: dict[Profile, int] = {"smoke": 20_000, "quick": 100_000, "full": 400_000}
WIDTHS: dict[Profile, tuple[int, ...]] = {
    "smoke": (64, 128),
    "quick": (64, 128),
    "full": (64, 96, 128, 1536),
}
TURNED = 20_000  # vectors of each kind, where it is asked what the rotation does
FIXED_ROTATIONS: dict[Profile, int] = {"smoke": 0, "quick": 1500, "full": 20_000}
PROJECTIONS_DRAWN = 20  # of prod: between one and the next its error differs by some percent
PRINTED = {1: 0.36, 2: 0.117, 3: 0.03, 4: 0.009}  # in the paper, cut off rather than rounded


def cells_of_distortion(settings: Settings) -> list[Cell]:
    """A cell for each width and part of it, and of fixed vectors one for each size of code."""
    found = [
        Cell({"width": width, "part": part}, share=share * (2 + width / 64), memory=2 * GIGABYTE)
        for width in _widths(settings)
        for part, share in (("law", 1), ("scales", 4), ("prod", 8))
    ]
    rotations = FIXED_ROTATIONS[settings.profile]
    fixed = [Cell({"part": "fixed", "bits": bits}, share=rotations / 60) for bits in BITS]
    return found + (fixed if rotations else [])


def _widths(settings: Settings) -> tuple[int, ...]:
    if settings.of_reference:
        return WIDTHS[settings.profile]
    return (subject_of(settings).width,)


def of_distortion(settings: Settings, part: str, width: int = 64, bits: int = 0) -> Found:
    if part == "fixed":
        return as_found(_of_fixed_vectors(settings, bits))
    x = unit_vectors(VECTORS[settings.profile] * 64 // width, width, settings.seed)
    of_part = {"law": _of_the_law, "scales": _of_scales, "prod": _of_prod}[part]
    return as_found(of_part(x, width, settings))


@experiment_of_cells(
    "turboquant.distortion",
    cells=cells_of_distortion,
    measure=of_distortion,
    smoke=2.5,
    quick=5,
    full=130,
    of_any_model=True,
    as_run_elsewhere=True,
)
def distortion(settings: Settings, found: CellsFound) -> list[Measurement]:
    """E‖x − x̂‖² of unit vectors beside the exact value, the paper's and both its bounds.

    Of another subject, vectors as wide as its heads.
    """
    return joined(settings, found)


of_distance = partial(
    measured, claim="turboquant.distortion", choice="cache format", direction="lower"
)


def _of_the_law(x: Tensor, width: int, settings: Settings) -> Iterator[Measurement]:
    for bits in BITS:
        labels: dict[str, Parameter] = {"width": width, "bits": bits}
        named = partial(of_distance, option="turboquant", parameters=labels)
        exact = lloyd_max(width, bits).distortion
        error = _error(TurboQuant(width, bits, seed=settings.seed), x, settings.device)
        for metric, unit, factor in (
            ("distortion", "of ‖x‖²", 1),
            ("distortion_over_exact", "ratio", 1 / exact),
            ("distortion_over_bound", "ratio", 1 / upper_bound(bits)),
            ("distortion_times_levels", "D·4^b", 4**bits),
        ):
            in_unit = scaled(error, factor)
            yield named(in_unit, metric=metric, unit=unit, source="simulation")
        for option, known in (
            ("exact", exact),
            ("the paper's table", PRINTED[bits]),
            ("upper bound", upper_bound(bits)),
            ("lower bound", lower_bound(bits)),
        ):
            source = "closed form" if option != "the paper's table" else "paper"
            yield of_distance(
                known,
                metric="distortion",
                unit="of ‖x‖²",
                option=option,
                parameters=labels,
                source=source,
            )


def _of_fixed_vectors(settings: Settings, bits: int) -> Iterator[Measurement]:
    """Of vectors that are anything but random, over rotations: one error, or 64, of each."""
    vectors = {"one coordinate alone": torch.eye(64), "constant": torch.full((1, 64), 0.125)}
    count = FIXED_ROTATIONS[settings.profile]
    codecs = [TurboQuant(64, bits, seed=settings.seed * count + i) for i in range(count)]
    for option, x in vectors.items():
        errors = [
            float((decoded(codec, x, settings.device) - x).square().sum(-1).mean())
            for codec in codecs
        ]
        yield of_distance(
            scaled(mean_interval(errors), 1 / lloyd_max(64, bits).distortion),
            metric="fixed_vector_distortion_over_exact",
            unit="ratio",
            option=option,
            parameters={"width": 64, "bits": bits},
            source="simulation",
        )


def _of_scales(x: Tensor, width: int, settings: Settings) -> Iterator[Measurement]:
    """Distortion, and the slope of ⟨x, x̂⟩ against ‖x‖², which is 1 − D with the paper's scale."""
    for scale in SCALES:
        for bits in BITS:
            codec = TurboQuant(width, bits, scale=scale, seed=settings.seed)
            found = decoded(codec, x, settings.device).double()
            labels: dict[str, Parameter] = {"scale": scale, "width": width, "bits": bits}
            errors = (found - x).square().sum(-1)
            slopes = (found * x).sum(-1)
            for metric, unit, values in (
                ("distortion_by_scale", "of ‖x‖²", errors),
                ("slope_by_scale", "1", slopes),
            ):
                yield of_distance(
                    mean_interval(values),
                    metric=metric,
                    unit=unit,
                    option="turboquant",
                    parameters=labels,
                    source="simulation",
                )


def _of_prod(x: Tensor, width: int, settings: Settings) -> Iterator[Measurement]:
    """D · E(⟨y, x − x̂⟩²) over random unit y, which is E‖x − x̂‖²: the paper's D_prod times D."""
    some = x[: len(x) // PROJECTIONS_DRAWN]
    of_variance = partial(
        of_distance, metric="inner_product_variance", unit="1/D", source="simulation"
    )
    for bits in BITS:
        labels: dict[str, Parameter] = {"width": width, "bits": bits}
        for projection in PROJECTIONS:
            codecs = [
                TurboQuantProd(width, bits, projection=projection, seed=seed)
                for seed in range(PROJECTIONS_DRAWN)
            ]
            errors = [_error(codec, some, settings.device).value for codec in codecs]
            found = mean_interval(errors)
            yield of_variance(found, option=f"prod, {projection} S", parameters=labels)
        plain = _error(TurboQuant(width, bits, seed=settings.seed), x, settings.device)
        yield of_variance(plain, option="turboquant", parameters=labels)


def unit_vectors(count: int, width: int, seed: int) -> Tensor:
    """Random directions, (count, D) float32."""
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(seed + 1))
    return x / x.norm(dim=-1, keepdim=True)


def decoded(codec: Codec, x: Tensor, device: str) -> Tensor:
    """x̂ (N, D), computed on the run's ``device``."""
    there = codec.to(device)
    return there.decode(there.encode(x.to(device))).cpu()


def _error(codec: Codec, x: Tensor, device: str) -> Estimate:
    """E‖x − x̂‖² of unit vectors (N, D)."""
    return mean_interval((decoded(codec, x, device) - x).square().sum(-1))


# ---- what does the work


@experiment(
    "turboquant.rotation-first",
    smoke=2.7,
    quick=4,
    full=6,
    of_any_model=True,
    as_run_elsewhere=True,
)
def rotation_first(settings: Settings) -> list[Measurement]:
    """By how much the rotation lowers the distortion, and by how much the codebook does.

    Levels equally spaced or the codebook's, each with and without a rotation, all with one scale a
    vector. Of the four, the gain by one is the geometric mean of its gains without and with the
    other. Blocks with a scale each stand beside them, at the bits that they hold.
    """
    keys, values = keys_and_values(settings, TURNED)
    vectors = {
        "random": unit_vectors(TURNED, keys.shape[-1], settings.seed),
        "keys": keys,
        "values": values,
        "keys with outliers": with_outliers(keys),
    }
    return [
        m
        for bits in PACKED
        for name, x in vectors.items()
        for m in _of_rotation(name, x, bits, settings.device)
    ]


def _of_rotation(name: str, x: Tensor, bits: int, device: str) -> Iterator[Measurement]:
    record = partial(
        measured,
        claim="turboquant.rotation-first",
        choice="vectors",
        direction="none",
        option=name,
        source="simulation" if name == "random" else "checkpoint",
    )
    lost: dict[str, np.ndarray] = {}
    for option, same in _arms(x.shape[-1], bits).items():
        lost[option] = np.array([relative_error(codec, x, device) for codec in same])
        weighted = lost[option] * 4 ** same[0].bits_per_value
        yield record(
            mean_interval(weighted) if len(weighted) > 1 else weighted[0],
            metric="distortion_times_levels",
            unit="D·4^bits held",
            parameters={"bits": bits, "codec": option},
        )
    even, turned_even = lost["even levels"], lost["rotated even levels"]
    codebook, both = lost["codebook"], lost["rotated codebook"]
    by_rotation = np.sqrt(even / turned_even * codebook / both)
    by_codebook = np.sqrt(even / codebook * turned_even / both)
    # On random vectors nothing can be gained by turning them: the known absence.
    control = "_control" if name == "random" else ""
    for metric, ratios in (
        ("gain_by_rotation", by_rotation),
        ("gain_by_codebook", by_codebook),
        (f"rotation_over_codebook{control}", by_rotation / by_codebook),
    ):
        yield record(
            geometric_mean_ratio_interval(ratios),
            metric=metric,
            unit="ratio",
            parameters={"bits": bits},
        )


def _arms(width: int, bits: int) -> dict[str, list[Codec]]:
    """Name → the same codec with each seed; without a rotation there is nothing to draw."""

    def turned(levels: Levels) -> list[Codec]:
        return [TurboQuant(width, bits, levels=levels, seed=seed) for seed in range(SEEDS)]

    return {
        "even levels": [TurboQuant(width, bits, rotation="none", levels="uniform")],
        "rotated even levels": turned("uniform"),
        "codebook": [TurboQuant(width, bits, rotation="none")],
        "rotated codebook": turned("lloyd_max"),
        "blocks": [AbsmaxBlocks(width, bits)],
        "rotated blocks": [AbsmaxBlocks(width, bits, seed=seed) for seed in range(SEEDS)],
    }


def relative_error(codec: Codec, x: Tensor, device: str) -> float:
    """Σ‖x − x̂‖² over Σ‖x‖² of vectors (N, D)."""
    lost = (decoded(codec, x, device) - x).double().square().sum()
    return float(lost / x.double().square().sum())
