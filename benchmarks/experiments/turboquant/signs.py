"""L5: does a Hadamard rotation need its signs?

Sylvester's matrix adds up all coordinates in its first row. What they share, such as a common mean,
comes out as one large coordinate; signs drawn beforehand leave nothing to share.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Settings,
    Unavailable,
    as_found,
    experiment_of_cells,
    joined,
)
from benchmarks.experiments.turboquant.kv_vectors import keys_and_values
from benchmarks.experiments.turboquant.lesson import TURNED, relative_error
from benchmarks.experiments.turboquant.memory import PACKED
from benchmarks.judging.stats import geometric_mean_ratio_interval, mean_interval
from benchmarks.record.results import Measurement, measured
from benchmarks.subjects.subject import subject_of
from reference_model.quantization.codec import Codec
from reference_model.quantization.rotation import HADAMARD_ROUNDS, hadamard
from reference_model.quantization.turboquant import TurboQuant

CLAIM = "turboquant.signs"
ROTATIONS = 20  # signed ones, by seed
ROUNDS = (1, HADAMARD_ROUNDS)  # of signs and a matrix: with one, nothing but the signs differs
SIMULATED = ("Gaussian", "shifted Gaussian", "otherwise shifted Gaussian")
CONTROL = SIMULATED[2]  # by 1 σ as well, but not along (1, …, 1): nothing is harmed
REAL = ("keys", "values")


def cells(settings: Settings) -> list[Cell]:
    """A cell for each kind of vectors; biases are kept where there are some that can be."""
    subject = subject_of(settings)
    kept = (False, True) if subject.is_built_here and subject.config.qkv_bias else (False,)
    found = [Cell({"vectors": name}) for name in SIMULATED]
    return found + [
        Cell({"vectors": name, "biases_kept": biases}) for biases in kept for name in REAL
    ]


def of_vectors(settings: Settings, vectors: str, biases_kept: bool = False) -> Found:
    width = subject_of(settings).width
    if width & (width - 1):
        raise Unavailable(f"Hadamard's matrix needs heads 2, 4, 8, … wide; these are {width} wide")
    if vectors in REAL:
        real = keys_and_values(settings, TURNED, drop_biases=not biases_kept)
        x = real[REAL.index(vectors)]
    else:
        x = simulated(vectors, width, settings.seed)
    return as_found(_of(vectors, x, settings.device, biases_kept))


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_vectors,
    smoke=None,
    quick=None,
    full=15,
    of_any_model=True,
    as_run_elsewhere=True,
)
def signs(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Distortion by one fixed Hadamard, and by those with signs: TurboQuant's, all else alike.

    Intervals are over the signs that are drawn, for these vectors. As many rounds as TurboQuant
    has stand beside one, and keys and values with their biases beside those without.
    """
    return joined(settings, found)


def simulated(name: str, width: int, seed: int) -> Tensor:
    """Standard normal vectors (n, D), or the same about a mean of 1 σ in every coordinate."""
    generator = torch.Generator().manual_seed(seed + 1)
    x = torch.randn(TURNED, width, generator=generator)
    if name == CONTROL:
        return x + (torch.randint(0, 2, (width,), generator=generator) * 2 - 1)
    return x + 1 if name == SIMULATED[1] else x


def _of(name: str, x: Tensor, device: str, biases_kept: bool) -> Iterator[Measurement]:
    suffix = "_biases_kept" if biases_kept else "_control" if name == CONTROL else ""
    record = partial(
        measured,
        claim=CLAIM,
        choice="vectors",
        option=name,
        source="checkpoint" if name in REAL else "simulation",
    )
    of_distortion = partial(record, metric=f"distortion{suffix}", unit="of ‖x‖²", direction="lower")
    for bits in PACKED:
        plain = TurboQuant(x.shape[-1], bits, rotation="unsigned_hadamard")
        unsigned = relative_error(plain, x, device)
        yield of_distortion(unsigned, parameters={"bits": bits, "signs": False})
        for rounds in ROUNDS:
            signed = np.array(
                [
                    relative_error(_signed(x.shape[-1], bits, rounds, seed), x, device)
                    for seed in range(ROTATIONS)
                ]
            )
            yield of_distortion(
                mean_interval(signed), parameters={"bits": bits, "signs": True, "rounds": rounds}
            )
            yield record(
                geometric_mean_ratio_interval(unsigned / signed),
                metric=f"unsigned_over_signed{suffix}",
                unit="ratio",
                direction="none",
                parameters={"bits": bits, "rounds": rounds},
            )


def _signed(width: int, bits: int, rounds: int, seed: int) -> Codec:
    """TurboQuant with a Hadamard of so many rounds."""
    codec = TurboQuant(width, bits, rotation="none")
    codec.rotation = hadamard(width, seed, rounds).float()
    return codec
