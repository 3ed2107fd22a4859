"""L4: whether Post-LN ends better than Pre-LN, each at its own best learning rate."""

from __future__ import annotations

from benchmarks.experiments.experiment import CellsFound, Settings
from benchmarks.instruments import trained_models
from benchmarks.instruments.comparison import Comparison, arms
from benchmarks.instruments.trained_models import BASELINE
from benchmarks.record.results import Measurement

RATES = (1e-3, 2e-3, 4e-3)
POST_RATES = (2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3)
POST_WARMUPS = (100, 400)  # steps: Post-LN is said to need more of it
COMPARED = Comparison(
    "norm.quality",
    {
        "pre": arms(BASELINE, RATES),
        "post": arms("post", POST_RATES, POST_WARMUPS)
        + arms("post, xavier", POST_RATES, POST_WARMUPS),
    },
    seeds=5,
    comparisons=2,
    scatter=0.018,
)


@COMPARED.experiment
def norm_quality(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What Post-LN loses less than Pre-LN, under the better of two initialisations for it."""
    measurements = list(COMPARED.told(found))
    for tokens in (trained_models.HALF, trained_models.WHOLE):
        measurements += COMPARED.advantage(found, "post", "pre", tokens)
    return measurements
