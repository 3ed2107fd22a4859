"""What a format does to a model's recall: that of the small model that was trained for it.

Its heads are as wide as its own configuration says, whatever the subject's are.
"""

from __future__ import annotations

from functools import cache

from benchmarks.experiments.experiment import Found
from benchmarks.instruments.recall import Prompts, recall_model, recall_prompts, recalled
from benchmarks.referee.rows import Row, fits
from reference_model.quantization.calibration import Calibration, calibrate

PROMPTS, CALIBRATED, AT_ONCE = 48, 16, 4  # prompts that are compared, and that codecs are fitted to
FITTED = 1_000_003  # seed of the latter: other pairs


def recalls(row: Row, device: str, seed: int) -> Found:
    """Share of the answers of each prompt that is found (seeds, prompts); None: no such heads."""
    model = recall_model().to(device)
    if not fits(row.of, model.config.d_head):
        return None
    prompts = recall_prompts(PROMPTS, seed)
    calibration = _calibrated(device, seed) if row.of.calibrated else None
    made = row.caches(model, prompts.length, calibration)
    return [recalled(model, prompts, make).mean(axis=1).tolist() for make in made]


@cache
def _calibrated(device: str, seed: int) -> list[Calibration]:
    prompts: Prompts = recall_prompts(CALIBRATED, FITTED + seed)
    return calibrate(recall_model().to(device), prompts.tokens.to(device).split(AT_ONCE))
