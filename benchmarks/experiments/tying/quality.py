"""L3: what a head of its own is worth, at equal width and at equal parameters."""

from __future__ import annotations

from benchmarks.experiments.experiment import CellsFound, Settings
from benchmarks.instruments import trained_models
from benchmarks.instruments.comparison import Comparison, arms
from benchmarks.instruments.trained_models import BASELINE
from benchmarks.record.results import Measurement

RATES = (1e-3, 2e-3, 3e-3, 4e-3)
NARROWER = "untied, equal parameters"
COMPARED = Comparison(
    "tying.quality",
    {
        "tied": arms(BASELINE, RATES),
        "untied": arms("untied", RATES),
        NARROWER: arms(NARROWER, RATES),
    },
    seeds=10,
    comparisons=4,
    scatter=0.006,
)


@COMPARED.experiment
def tying_quality(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What the untied model loses less at equal width, and the tied one at equal parameters."""
    measurements = list(COMPARED.told(found))
    for tokens in (trained_models.HALF, trained_models.WHOLE):
        measurements += COMPARED.same_twice(found, "tied", tokens)
    for option, other, equal in (("untied", "tied", "width"), ("tied", NARROWER, "parameters")):
        for tokens in (trained_models.HALF, trained_models.WHOLE):
            measurements += COMPARED.advantage(found, option, other, tokens, {"equal": equal})
    return measurements
