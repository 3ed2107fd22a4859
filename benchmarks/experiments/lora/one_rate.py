"""L1: whether rsLoRA beats LoRA at rank 64 by more than a larger scale at the same rate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

from benchmarks.experiments.experiment import Cell, CellsFound, Found, Settings, experiment_of_cells
from benchmarks.experiments.lora.rank import Sweep, Tried, best_rate, held_out
from benchmarks.instruments.design import finds
from benchmarks.instruments.finetuning import Outcome, run
from benchmarks.instruments.rank_sweep import Law, fine_tune
from benchmarks.instruments.topics import topics_source
from benchmarks.judging.stats import crossed_mean_interval
from benchmarks.record.results import Measurement, Parameter, measured

CLAIM = "lora.rslora-is-a-rate"
RANK = 64
SEEDS = range(30, 40)
LORA, RSLORA = "alpha/r", "alpha/sqrt(r)"
# Each √2 times the one before. By lora.learning-rate-law the best rates lie a factor of 2 apart.
GRID = [0.7e-3 * 2 ** (power / 2) for power in range(-3, 6)]
RATES: Mapping[str, list[float]] = {LORA: GRID[2:], RSLORA: GRID[:7]}
# Scales of 2 and of 8, as the widely copied comparison has them.
WAYS = {LORA: Law("lora", 128.0, 0.0, GRID[5]), RSLORA: Law("rslora", 64.0, -0.25, GRID[3])}


def cells(settings: Settings) -> list[Cell]:
    """A cell for each fine-tune."""
    return [
        Cell({"scaling": name, "rate": rate, "seed": seed})
        for name, rates in RATES.items()
        for rate in rates
        for seed in SEEDS
    ]


def of_a_cell(settings: Settings, scaling: str, rate: float, seed: int) -> Found:
    """Fields of an `Outcome`."""
    return asdict(run(fine_tune(WAYS[scaling], RANK, rate, seed), settings.device))


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_cell,
    smoke=None,
    quick=None,
    full=900,
    design=finds(len(SEEDS), scatter=0.02),
)
def rslora_is_a_rate(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What rsLoRA saves at one rate, and at the best rate of each, chosen on validation text."""
    tried: dict[Tried, list[Outcome]] = {}
    for labels, of_cell in found:
        key = str(labels["scaling"]), RANK, float(labels["rate"])
        tried.setdefault(key, []).append(Outcome(**of_cell))
    best = {name: best_rate(tried, name, RANK) for name in RATES}
    record = partial(
        measured, claim=CLAIM, choice="scaling", source=topics_source(), unit="nats/token"
    )
    measurements = []
    for name, _, rate in tried:
        if (losses := held_out(tried, (name, RANK, rate))) is not None:
            measurements.append(
                record(
                    crossed_mean_interval(losses),
                    metric="held_out_loss",
                    option=name,
                    parameters={"rate": rate, "best": rate == best[name]},
                    direction="lower",
                )
            )
    shared = [rate for rate in RATES[LORA] if rate in RATES[RSLORA]]
    pairs: list[tuple[dict[str, Parameter], float, float]] = [
        ({"rates": "one", "rate": rate}, rate, rate) for rate in shared
    ]
    pairs.append(({"rates": "the best of each"}, best[LORA], best[RSLORA]))
    for told, of_lora, of_rslora in pairs:
        measurements += _saved(tried, told, of_lora, of_rslora, record)
    return measurements


def _saved(
    tried: Sweep,
    told: Mapping[str, Parameter],
    of_lora: float,
    of_rslora: float,
    record: partial[Measurement],
) -> list[Measurement]:
    """Paired over seeds and windows; nothing where a fine-tune of either diverged."""
    lora = held_out(tried, (LORA, RANK, of_lora))
    rslora = held_out(tried, (RSLORA, RANK, of_rslora))
    if lora is None or rslora is None:
        return []
    return [
        record(
            crossed_mean_interval(lora - rslora),
            metric="loss_saved",
            option=RSLORA,
            parameters={**told, "seeds": len(SEEDS)},
            direction="higher",
        )
    ]
