"""What a format does to a model's recall: random pairs, and needles in the subject's own text.

Pairs are asked of the small model that was trained for them. Its heads are as wide as its own
configuration says, whatever the subject's are.
"""

from __future__ import annotations

from functools import cache

from benchmarks.experiments.experiment import Found, Settings
from benchmarks.instruments.recall import (
    Prompts,
    needle_prompts,
    recall_model,
    recall_prompts,
    recalled,
    sixteen_bits,
)
from benchmarks.referee.rows import Row, fits
from benchmarks.referee.texts import calibrations
from benchmarks.subjects.subject import subject_of
from reference_model.errors import UserError
from reference_model.quantization.calibration import Calibration, calibrate

PROMPTS, CALIBRATED, AT_ONCE = 48, 16, 4  # prompts that are compared, and that codecs are fitted to
FITTED = 1_000_003  # seed of the latter: other pairs
NEEDLE_PROMPTS, FEW_NEEDLE_PROMPTS = 12, 6  # fewer of a large model, whose prompts are longer


def recalls(row: Row, device: str, seed: int) -> Found:
    """Share of the answers of each prompt that is found (seeds, prompts); None: no such heads."""
    model = recall_model().to(device)
    if not fits(row.of, model.config.d_head):
        return None
    prompts = recall_prompts(PROMPTS, seed)
    calibration = _calibrated(device, seed) if row.of.calibrated else None
    made = row.caches(model, prompts.length, calibration, decoded=True)
    return [recalled(model, prompts, make).mean(axis=1).tolist() for make in made]


@cache
def _calibrated(device: str, seed: int) -> list[Calibration]:
    prompts: Prompts = recall_prompts(CALIBRATED, FITTED + seed)
    return calibrate(recall_model().to(device), prompts.tokens.to(device).split(AT_ONCE))


def needles(row: Row | None, settings: Settings) -> Found:
    """Which needles the subject finds, 0 or 1 (needles,), and the ``clusters`` of them.

    Through the row's first seed; no row: without compression. None: text or context is too short.
    """
    subject = subject_of(settings)
    count = FEW_NEEDLE_PROMPTS if subject.is_large else NEEDLE_PROMPTS
    try:
        prompts = needle_prompts(subject, count, settings.seed)
    except UserError:
        return None
    model = subject.model()
    if row is None:
        make = sixteen_bits(model, prompts)
    else:
        calibration = calibrations(settings) if row.of.calibrated else None
        make = next(row.caches(model, prompts.length, calibration, decoded=True))
    found = recalled(model, prompts, make)  # (prompts, needles of each)
    return {
        "found": found.astype(int).ravel().tolist(),
        "clusters": prompts.clusters.repeat(found.shape[1]).tolist(),
        "population": prompts.population,
    }
