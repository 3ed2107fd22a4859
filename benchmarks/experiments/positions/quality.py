"""L2: which position encoding ends with the lowest loss, each at its own best learning rate."""

from __future__ import annotations

from benchmarks.experiments.experiment import CellsFound, Settings
from benchmarks.instruments import trained_models
from benchmarks.instruments.comparison import Comparison, arms
from benchmarks.instruments.trained_models import BASELINE
from benchmarks.record.results import Measurement

RATES = (1e-3, 2e-3, 4e-3)
HALF_A_HEAD = "half a head"  # a planted effect: it has to lose
COMPARED = Comparison(
    "position.quality",
    {
        "learned": arms(BASELINE, RATES),
        "rope": arms("rope", RATES),
        # Sinusoids have a size of their own: embeddings scaled up to it, or as they are.
        "sinusoidal": arms("sinusoidal", RATES) + arms("sinusoidal, scaled", RATES),
        "alibi": arms("alibi", RATES),
        "none": arms("none", RATES),
        HALF_A_HEAD: arms(HALF_A_HEAD, RATES),
    },
    seeds=5,
)


@COMPARED.experiment
def position_quality(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What rotary positions lose less than each other encoding, at equal tokens.

    Rotary, sinusoidal, ALiBi and none have 16,384 parameters fewer than learned ones, 1.7 %.
    """
    others = [option for option in COMPARED.options if option not in ("rope", HALF_A_HEAD)]
    measurements = list(COMPARED.told(found))
    for tokens in (trained_models.HALF, trained_models.WHOLE):
        measurements += COMPARED.excess(found, HALF_A_HEAD, "learned", tokens, 2)
        for other in others:
            measurements += COMPARED.advantage(
                found, "rope", other, tokens, 2 * len(others), {"over": other}
            )
    return measurements
