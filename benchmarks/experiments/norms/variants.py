"""L4: whether DeepNorm, RMSNorm and a double norm train at wide ranges of rates, and end low."""

from __future__ import annotations

from typing import Any

from benchmarks.experiments.experiment import Cell, CellsFound, Found, Settings, experiment_of_cells
from benchmarks.experiments.norms import stable_range
from benchmarks.experiments.norms.quality import COMPARED as PLACEMENTS
from benchmarks.experiments.norms.quality import POST_RATES, POST_WARMUPS, RATES
from benchmarks.instruments import comparison, trained_models
from benchmarks.instruments.comparison import Comparison, arms
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


def cells(settings: Settings) -> list[Cell]:
    return COMPARED.cells(settings) + stable_range.cells_of(TRIED)


def further(settings: Settings, found: CellsFound) -> list[Cell]:
    return COMPARED.further(settings, _trained(found))


def of_a_cell(settings: Settings, **labels: Any) -> Found:
    instrument = stable_range if "depth" in labels else comparison
    return instrument.of_a_cell(settings, **labels)


def _trained(found: CellsFound) -> CellsFound:
    """Without the stable rates."""
    return [(labels, of_cell) for labels, of_cell in found if "depth" not in labels]


@experiment_of_cells(
    COMPARED.claim,
    cells=cells,
    measure=of_a_cell,
    further=further,
    smoke=None,
    quick=None,
    full=COMPARED.seconds + stable_range.seconds_of(TRIED),
    design=COMPARED.design,
)
def norm_variants(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Largest stable rates over Pre-LN's; losses above Post-LN's, and below Pre-LN's."""
    claim, trained = COMPARED.claim, _trained(found)
    measurements = list(COMPARED.told(trained))
    measurements += stable_range.rates(claim, found, {name: name for name in VARIANTS})
    for option in VARIANTS:
        measurements += stable_range.ratios(claim, found, option, stable_range.PRE, option, "pre")
        for tokens in (trained_models.HALF, trained_models.WHOLE):
            measurements += COMPARED.excess(trained, option, "post", tokens, {"over": "post"})
            measurements += COMPARED.advantage(trained, option, "pre", tokens, {"over": "pre"})
    return measurements
