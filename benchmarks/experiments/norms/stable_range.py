"""L4: the largest learning rate that trains, by where the norms are, depth and warm-up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.experiments.experiment import Cell, CellsFound, Found, Settings, experiment_of_cells
from benchmarks.instruments import stable_range
from benchmarks.judging.stats import geometric_mean_ratio_interval
from benchmarks.record.results import Measurement, Parameter, measured

CLAIM = "norm.stable-range"
PRE, POSTS = "baseline", ("post", "post, xavier")
WARMUPS = (0, 100)  # steps
SEEDS = range(120, 123)
SECONDS = {4: 64.0, 12: 300.0}  # of one thread, by depth: four runs


def cells_of(options: Sequence[str]) -> list[Cell]:
    """A bisection for each option, depth, warm-up and seed."""
    return [
        Cell(
            {"option": option, "depth": depth, "warmup": warmup, "seed": seed},
            share=seconds,
            shared=stable_range.__name__,
        )
        for option in options
        for depth, seconds in SECONDS.items()
        for warmup in WARMUPS
        for seed in SEEDS
    ]


def seconds_of(options: Sequence[str]) -> float:
    """Of two cores."""
    return sum(cell.share for cell in cells_of(options)) / 2


def of_a_cell(settings: Settings, **labels: Any) -> Found:
    """What a cell finds, whichever claim asks first."""
    return stable_range.measure(settings, **labels)


def ratios(
    claim: str, found: CellsFound, option: str, other: str, as_option: str, as_other: str
) -> Iterator[Measurement]:
    """The largest stable rate of an option over another's, paired by seed; of each the rate."""
    for depth in SECONDS:
        for warmup in WARMUPS:
            labels: dict[str, Parameter] = {
                "over": as_other,
                "depth": depth,
                "warmup_steps": warmup,
                "tokens": stable_range.tokens_of(depth),
            }
            pairs = zip(
                *(_largest(found, name, depth, warmup) for name in (option, other)), strict=True
            )
            yield _measured(
                claim,
                geometric_mean_ratio_interval([ours / theirs for ours, theirs in pairs]),
                metric="stable_rate_ratio",
                option=as_option,
                parameters=labels,
                direction="higher",
            )


def rates(claim: str, found: CellsFound, names: dict[str, str]) -> Iterator[Measurement]:
    """The largest stable rate of each option, by the name that it is told by."""
    for option, told in names.items():
        for depth in SECONDS:
            for warmup in WARMUPS:
                largest = _largest(found, option, depth, warmup)
                yield _measured(
                    claim,
                    geometric_mean_ratio_interval(largest),
                    metric="largest_stable_rate",
                    option=told,
                    parameters={
                        "depth": depth,
                        "warmup_steps": warmup,
                        "tokens": stable_range.tokens_of(depth),
                    },
                    direction="higher",
                )


def _largest(found: CellsFound, option: str, depth: int, warmup: int) -> list[float]:
    """Of each seed."""
    wanted = {"option": option, "depth": depth, "warmup": warmup}
    return [
        float(of_cell["largest"]) for labels, of_cell in found if wanted.items() <= labels.items()
    ]


def _measured(claim: str, found: Any, **told: Any) -> Measurement:
    return measured(found, claim=claim, unit="1", choice="trained", source="training", **told)


@experiment_of_cells(
    CLAIM,
    cells=lambda settings: cells_of((PRE, *POSTS)),
    measure=of_a_cell,
    smoke=None,
    quick=None,
    full=seconds_of((PRE, *POSTS)),
    design=f"{len(SEEDS)} seeds a point find a factor of 2, if borders move by √2 as in a pilot",
)
def norm_stable_range(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Pre-LN's largest stable rate over Post-LN's, under two initialisations of Post-LN."""
    names = {PRE: "pre", "post": "post", "post, xavier": "post, Xavier"}
    measurements = list(rates(CLAIM, found, names))
    for post in POSTS:
        measurements += ratios(CLAIM, found, PRE, post, "pre", names[post])
    return measurements
