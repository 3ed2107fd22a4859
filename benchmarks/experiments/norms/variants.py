"""L4: whether DeepNorm, RMSNorm and a double norm train at wide ranges of rates, and end low."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from benchmarks.experiments.experiment import Cell, CellsFound, Found, Settings, experiment_of_cells
from benchmarks.experiments.norms import stable_range
from benchmarks.experiments.norms.quality import COMPARED as PLACEMENTS
from benchmarks.experiments.norms.quality import POST_RATES, POST_WARMUPS, RATES
from benchmarks.instruments import comparison, norm_cost, trained_models
from benchmarks.instruments.comparison import Comparison, arms
from benchmarks.judging.stats import geometric_mean_ratio_interval
from benchmarks.record.results import Measurement

VARIANTS = ("deepnorm", "rmsnorm", "double")
TRIED = (stable_range.PRE, *VARIANTS)  # rates of
COMPARED = Comparison(
    "norm.variants",
    {
        **PLACEMENTS.options,
        "deepnorm": arms("deepnorm", POST_RATES, POST_WARMUPS),
        "rmsnorm": arms("rmsnorm", RATES),
        # Its branches have the size of a norm: beside embeddings as they are, or scaled up.
        "double": arms("double", RATES) + arms("double, scaled", RATES),
    },
    seeds=5,
    comparisons=6,
    scatter=0.018,
    seeds_of={"pre": 10, "rmsnorm": 10},
)


PROCESSES = 5  # in which norms take turns
TIMED_SECONDS = 25.0


def cells(settings: Settings) -> list[Cell]:
    timed = [Cell({"process": i}, share=TIMED_SECONDS, timed=True) for i in range(PROCESSES)]
    return COMPARED.cells(settings) + stable_range.cells_of(TRIED) + timed


def further(settings: Settings, found: CellsFound) -> list[Cell]:
    return COMPARED.further(settings, _trained(found))


def of_a_cell(settings: Settings, process: int | None = None, **labels: Any) -> Found:
    if process is not None:
        return norm_cost.measure(settings)
    instrument = stable_range if "depth" in labels else comparison
    return instrument.of_a_cell(settings, **labels)


def _trained(found: CellsFound) -> CellsFound:
    """Without the stable rates and the times."""
    return [
        (labels, of_cell)
        for labels, of_cell in found
        if "option" in labels and "depth" not in labels
    ]


@experiment_of_cells(
    COMPARED.claim,
    cells=cells,
    measure=of_a_cell,
    further=further,
    smoke=None,
    quick=None,
    full=COMPARED.seconds + stable_range.seconds_of(TRIED) + PROCESSES * TIMED_SECONDS,
    design=COMPARED.design,
)
def norm_variants(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Largest stable rates over Pre-LN's; losses above Post-LN's, and below Pre-LN's; a cost.

    RMSNorm's seconds and arithmetic are over LayerNorm's.
    """
    claim, trained = COMPARED.claim, _trained(found)
    measurements = list(COMPARED.told(trained))
    measurements += stable_range.rates(claim, found, {name: name for name in VARIANTS})
    for option in VARIANTS:
        measurements += stable_range.ratios(claim, found, option, stable_range.PRE, option, "pre")
        for tokens in (trained_models.HALF, trained_models.WHOLE):
            measurements += COMPARED.excess(trained, option, "post", tokens, {"over": "post"})
            measurements += COMPARED.advantage(trained, option, "pre", tokens, {"over": "pre"})
    return [*measurements, *_cost([of_cell for labels, of_cell in found if "process" in labels])]


def _cost(processes: Sequence[Any]) -> Iterator[Measurement]:
    """A process is an observation."""
    record = partial(COMPARED.measured, option="rmsnorm", direction="lower", unit="ratio")
    for timed in processes[0]:
        ratios = [found[timed]["rmsnorm"] / found[timed]["layernorm"] for found in processes]
        yield record(
            geometric_mean_ratio_interval(ratios),
            metric="seconds_ratio",
            parameters={"of": timed, "over": "layernorm"},
            source="clock",
        )
    yield record(
        norm_cost.ARITHMETIC["rmsnorm"] / norm_cost.ARITHMETIC["layernorm"],
        metric="arithmetic_ratio",
        parameters={"of": "a norm", "over": "layernorm"},
        source="closed form",
    )
