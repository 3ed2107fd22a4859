"""What the benchmarks are asked about: `MODEL`, where it is not a preset, in `DTYPE`, on `DEVICE`.

Variables tell them. `python -m reports.gate` sets those that its arguments are called after, and
`make history` the device; for `asv run`, set them by hand. Which device "auto" is, whoever sets
them has to know: an old commit's model could not tell.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model

MODEL = os.environ.get("LLM_DESIGN_BENCH_MODEL")  # smollm2, a folder or a .gguf file
DTYPE = os.environ.get("LLM_DESIGN_BENCH_DTYPE", "float32")
DEVICE = os.environ.get("LLM_DESIGN_BENCH_DEVICE", "cpu")
if DEVICE not in ("cpu", "cuda"):
    raise ValueError(f"LLM_DESIGN_BENCH_DEVICE={DEVICE!r}; use cpu or cuda")


def check_dtype() -> None:
    """ValueError unless `DTYPE` is one that every command takes."""
    try:
        from reference_model.devices import DTYPES
    except ImportError:  # an old commit's model has no such list, and PyTorch one of its own
        return
    if DTYPE not in DTYPES:
        raise ValueError(f"LLM_DESIGN_BENCH_DTYPE={DTYPE!r}; use one of {', '.join(DTYPES)}")


def asked_model(dtype: str, choices: Mapping[str, str]) -> Model:
    """`MODEL` with its own weights; NotImplementedError where it has not these choices."""
    assert MODEL is not None
    model = _opened(MODEL, dtype)
    for field, value in choices.items():
        if getattr(model.config, field, None) != value:
            raise NotImplementedError(f"{MODEL} has another {field} than {value}")
    return model


@cache
def _opened(name: str, dtype: str) -> Model:
    import torch

    from reference_model.models import open_model

    return open_model(name, getattr(torch, dtype)).model
