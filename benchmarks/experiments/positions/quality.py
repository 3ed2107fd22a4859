"""L2: which position encoding ends with the lowest loss, each at its own best learning rate."""

from __future__ import annotations

import numpy as np

from benchmarks.experiments.experiment import CellsFound, Settings
from benchmarks.instruments import trained_models
from benchmarks.instruments.comparison import Comparison, arms
from benchmarks.instruments.trained_models import BASELINE, held_out
from benchmarks.judging.stats import crossed_mean_interval
from benchmarks.record.results import Measurement

RATES = (1e-3, 2e-3, 4e-3)
HALF_A_HEAD = "half a head"  # a planted effect: it has to lose
SHUFFLED = "learned, shuffled"  # another: positions that are in another order once all is trained
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
    comparisons=8,  # rotary with each other encoding, after half of the tokens and after all
    scatter=0.018,
)


@COMPARED.experiment
def position_quality(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What rotary positions lose less than each other encoding, at equal tokens.

    Rotary, sinusoidal, ALiBi and none have 16,384 parameters fewer than learned ones, 1.7 %.
    """
    others = [option for option in COMPARED.options if option not in ("rope", HALF_A_HEAD)]
    measurements = list(COMPARED.told(found))
    measurements += _shuffled(found)
    for tokens in (trained_models.HALF, trained_models.WHOLE):
        measurements += COMPARED.excess(found, HALF_A_HEAD, "learned", tokens)
        for other in others:
            measurements += COMPARED.advantage(found, "rope", other, tokens, {"over": other})
    return measurements


def _shuffled(found: CellsFound) -> list[Measurement]:
    """What trained models lose by having their positions shuffled; nothing if one did not train."""
    runs, windows = COMPARED.judged(found, "learned"), held_out()
    losses = COMPARED.losses(found, "learned", trained_models.WHOLE)
    if losses is None or not all(run["shuffled"] for run in runs):
        return []
    more = np.array([run["shuffled"] for run in runs]) - losses
    return [
        COMPARED.measured(
            crossed_mean_interval(more, windows.stretches).of(windows.population),
            metric="loss_excess",
            option=SHUFFLED,
            parameters={"tokens": trained_models.WHOLE, "seeds": len(runs)},
            direction="lower",
        )
    ]
