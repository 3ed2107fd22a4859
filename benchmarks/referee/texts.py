"""What the referee reads: windows to compare by, and other text to calibrate by."""

from __future__ import annotations

from functools import cache

import numpy as np
from torch import Tensor

from benchmarks.data.assets import play_texts
from benchmarks.experiments.experiment import Settings
from benchmarks.instruments.texts import encode
from benchmarks.instruments.windows import Windows, spread, windows_of
from benchmarks.subjects.subject import Subject, subject_of
from reference_model.errors import UserError
from reference_model.quantization.calibration import Calibration, calibrate

WINDOWS, FEW_WINDOWS = 27, 8  # that are compared; fewer of a large model
CALIBRATED = 16  # windows that codecs are fitted to
APART = 10  # of a text file the first of so many parts is left to calibration
LEAST = 4  # windows of a text file
AT_ONCE = 4  # windows in a batch of calibration


def compared(settings: Settings) -> Windows:
    """Windows of the held-out text, spread over all of it; of a file, without its first tenth."""
    subject = subject_of(settings)
    count = FEW_WINDOWS if subject.is_large else WINDOWS
    if settings.text is None:
        return subject.windows(count, settings.seed)
    every, apart = _of_file(subject)
    return spread(every[np.arange(apart, len(every))], count, settings.seed)


def calibration_text(settings: Settings) -> Windows:
    """Text that is not compared: the plays for validation, or the first tenth of a file."""
    subject = subject_of(settings)
    if settings.text is None:
        plays = [encode(subject.tokenizer, text) for text in play_texts("validation").values()]
        return spread(windows_of(plays, subject.window), CALIBRATED, settings.seed)
    every, apart = _of_file(subject)
    return spread(every[np.arange(apart)], CALIBRATED, settings.seed)


@cache
def calibrations(settings: Settings) -> list[Calibration]:
    """Of each layer."""
    subject = subject_of(settings)
    text: Tensor = calibration_text(settings).inputs.to(subject.device)
    return calibrate(subject.model(), text.split(AT_ONCE))


def _of_file(subject: Subject) -> tuple[Windows, int]:
    """All windows of a text file, and how many of the first are left to calibration."""
    every = subject.windows()
    if len(every) < LEAST:
        raise UserError(
            f"{subject.text} has {len(every)} windows of {subject.window} tokens, of which the "
            f"referee needs {LEAST}; use a longer text"
        )
    return every, -(-len(every) // APART)
