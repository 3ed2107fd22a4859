"""Formats as tests build them: with a calibration of no text, one codec of each role."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.referee.formats import FORMATS, Codecs
from reference_model.quantization.calibration import Calibration
from reference_model.quantization.codec import Codec


def plain_calibration(width: int, layers: int = 1) -> list[Calibration]:
    """Of normal vectors: as a text gives it that prefers no direction."""
    moment = torch.eye(width, dtype=torch.float64)
    return [Calibration(moment, moment, 5.0, 5.0, tokens=1000)] * layers


def built(name: str, width: int, bits: int) -> tuple[Codec, Codec]:
    keys, values = FORMATS[name].codecs(width, bits, calibration=plain_calibration(width))
    return first(keys), first(values)


def first(codecs: Codecs) -> Codec:
    return codecs if isinstance(codecs, Codec) else codecs[0]


def decoded(codec: Codec, x: Tensor) -> Tensor:
    return codec.decode(codec.encode(x))
