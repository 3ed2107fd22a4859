"""L5: is the bit that QJL takes for the residual well spent? By what it does to predictions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Settings,
    experiment_of_cells,
)
from benchmarks.experiments.turboquant.kv_quality import (
    Way,
    measurements,
    read_through,
    recorder,
    together,
)
from benchmarks.experiments.turboquant.lesson import PROJECTIONS
from benchmarks.instruments.cache_quality import LEAST_DIVERGENCE
from benchmarks.instruments.windows import Windows
from benchmarks.judging.stats import Estimate, exponential, holm, student_p_value
from benchmarks.record.results import Measurement, Parameter
from benchmarks.subjects.subject import subject_of
from reference_model.quantization.baselines import Plain
from reference_model.quantization.codec import Codec
from reference_model.quantization.turboquant import TurboQuant, TurboQuantProd

CLAIM = "turboquant.qjl-budget"
TOTAL_BITS = (3, 4)  # a coordinate, the residual's bit included
COMPRESSED = ("keys", "values", "keys and values")
SEEDS = 5  # rotations, and projections of the residual with them
WINDOWS = 27  # one of each stretch of the test plays, about
ALONE, WITH_QJL = "codebook", "with QJL"
# What a codebook alone has, beside one with QJL: by how many bits less.
FEWER_BITS = {"as many bits": 0, "one bit less": 1}

Labels = dict[str, Parameter]


def cells(settings: Settings) -> list[Cell]:
    """A cell for each seed; it reads the text through all codecs."""
    return [
        Cell({"compressed": compressed, "seed": seed})
        for compressed in COMPRESSED
        for seed in range(SEEDS)
    ]


def codecs_with_qjl(width: int, bits: int, seed: int) -> dict[str, Codec]:
    """Projection of the residual → ``bits`` in all."""
    return {
        projection: TurboQuantProd(width, bits, projection=projection, seed=seed)
        for projection in PROJECTIONS
    }


def ways(width: int, compressed: str, seeds: range) -> list[Way]:
    """The codebook alone at each size, from one bit less on; and with QJL."""
    exact = Plain(width, torch.float32)

    def way(option: str, labels: Labels, codecs: list[Codec]) -> Way:
        keys, values = "keys" in compressed, "values" in compressed
        pairs = [(codec if keys else exact, codec if values else exact) for codec in codecs]
        return Way(option, {"compressed": compressed, **labels}, pairs)

    found = [
        way(ALONE, {"bits": bits}, [TurboQuant(width, bits, seed=seed) for seed in seeds])
        for bits in range(TOTAL_BITS[0] - 1, TOTAL_BITS[-1] + 1)
    ]
    for bits in TOTAL_BITS:
        of_seeds = [codecs_with_qjl(width, bits, seed) for seed in seeds]
        for projection in of_seeds[0]:
            labels: Labels = {"bits": bits, "projection": projection}
            found.append(way(WITH_QJL, labels, [each[projection] for each in of_seeds]))
    return found


def of_a_seed(settings: Settings, compressed: str, seed: int) -> Found:
    subject = subject_of(settings)
    chosen = ways(subject.width, compressed, range(seed, seed + 1))
    return read_through(subject, text_of(settings), chosen)


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_seed,
    smoke=None,
    quick=None,
    full=330,
    of_any_model=True,
)
def qjl_budget(settings: Settings, found: CellsFound) -> list[Measurement]:
    """What keys and values cost with QJL's bit, and with the codebook alone.

    ``kl_ratio``: divergence of the predictions with QJL over that with a codebook of as many bits,
    or of one bit less; paired by window and by rotation. QJL holds one scale more, which no side
    counts. ``holm_p_value``: of the ratio's being 1, all those of as many bits taken together.
    """
    windows, width = text_of(settings), subject_of(settings).width
    read: list[tuple[Way, Found]] = []
    for compressed in COMPRESSED:
        of_seeds = [of_seed for labels, of_seed in found if labels["compressed"] == compressed]
        for way in ways(width, compressed, range(SEEDS)):
            read.append((way, together([of_seed[way.name] for of_seed in of_seeds])))
    result = [m for each in read for m in measurements(windows, *each, recorder(CLAIM))]
    for against in FEWER_BITS:
        result += _ratios(windows, read, against)
    return result


def text_of(settings: Settings) -> Windows:
    return subject_of(settings).windows(WINDOWS, settings.seed)


def _ratios(
    windows: Windows, read: Sequence[tuple[Way, Found]], against: str
) -> Iterator[Measurement]:
    """Of each way with QJL over the codebook alone."""
    alone = {
        (way.parameters["compressed"], way.parameters["bits"]): of_way["divergences"]
        for way, of_way in read
        if way.option == ALONE
    }
    found: list[tuple[Way, Estimate]] = []
    for way, of_way in read:
        if way.option == WITH_QJL:
            bits = int(way.parameters["bits"]) - FEWER_BITS[against]
            other = alone[way.parameters["compressed"], bits]
            pair = np.array([of_way["divergences"], other])  # (2, seeds, windows)
            # What float32's rounding leaves of a divergence may be less than 0.
            logs, of_other = np.log(np.maximum(pair, LEAST_DIVERGENCE))
            found.append((way, windows.crossed_mean(logs - of_other)))
    adjusted = holm([student_p_value(log) for _, log in found])
    for (way, log), p_value in zip(found, adjusted, strict=True):
        record = partial(
            recorder(CLAIM),
            option=way.option,
            parameters={**way.parameters, "against": against, "seeds": SEEDS},
        )
        yield record(exponential(log), metric="kl_ratio", unit="ratio")
        yield record(float(p_value), metric="holm_p_value", unit="1", direction="none")
