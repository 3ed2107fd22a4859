"""L5: what it costs in loss that four heads share one head of keys and values."""

from __future__ import annotations

from benchmarks.experiments.experiment import CellsFound, Settings
from benchmarks.instruments import trained_models
from benchmarks.instruments.comparison import Comparison, arms
from benchmarks.instruments.trained_models import config_of
from benchmarks.record.results import Measurement
from reference_model.costs import kv_cache_bytes

RATES = (1e-3, 2e-3, 4e-3)
ALL, QUARTER, WIDER = "all heads", "a quarter of the heads", "a quarter of the heads, wider MLP"
TRAINED = {ALL: "four heads", QUARTER: "one for four", WIDER: "one for four, equal parameters"}
GATED = "all heads, gated MLP"  # a change that the literature agrees on, seen by the same means
COMPARED = Comparison(
    "cache.grouped-queries",
    {
        **{name: arms(trained, RATES) for name, trained in TRAINED.items()},
        GATED: arms("swiglu for four", RATES),
    },
    seeds=10,
    comparisons=4,
    scatter=0.006,
    seeds_of={GATED: 5},
)


@COMPARED.experiment
def grouped_queries(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What a quarter of the heads loses more, at equal parameters and at fewer; and its cache.

    A quarter of four heads is one: keys and values of all queries are the same.
    """
    measurements = list(COMPARED.told(found))
    for option, equal in ((WIDER, "parameters"), (QUARTER, "width")):
        for tokens in (trained_models.HALF, trained_models.WHOLE):
            measurements += COMPARED.excess(
                found, option, ALL, tokens, {"equal": equal}, told_as=QUARTER
            )
    for tokens in (trained_models.HALF, trained_models.WHOLE):
        measurements += COMPARED.advantage(found, GATED, ALL, tokens, {"equal": "parameters"})
    for name, trained in TRAINED.items():
        config = config_of(trained)
        measurements.append(
            COMPARED.measured(
                kv_cache_bytes(config, config.context_length),
                metric="cache_bytes",
                option=name,
                parameters={"tokens": config.context_length},
                direction="lower",
                unit="bytes",
                source="counted",
            )
        )
    return measurements
