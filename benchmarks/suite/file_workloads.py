"""What the benchmarks of files run: reading the folder of a published family into a model."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.suite.workloads import (
    PROFILE,
    SIZE,
    SIZES,
    check_choices,
    of_this_commit,
    start,
    value_of,
)

if TYPE_CHECKING:
    from benchmarks.subjects.built import ModelConfig

# What makes a model of the profile's shape one of the family.
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {
        "position": "rope",
        "norm": "rmsnorm",
        "mlp": "swiglu",
        "bias": False,
        "n_kv_head": 1,
    },
}


@of_this_commit()
def saved(family: str) -> tuple[TemporaryDirectory[str], ModelConfig]:
    """A folder of float32 weights, and the model's configuration."""
    start()
    from benchmarks.subjects.built import Model
    from reference_model.config import preset
    from reference_model.export import save_huggingface

    check_choices(FAMILIES[family])
    config = preset(SIZES[PROFILE].model, **FAMILIES[family])  # never a file
    folder = TemporaryDirectory()
    save_huggingface(Model(config), Path(folder.name))
    return folder, config


def peak_over_weights(folder: str, config: ModelConfig, dtype: str) -> float:
    """The most that loading adds to a fresh process, over what the model itself takes."""
    import torch

    from benchmarks.instruments.memory import peak_rss
    from reference_model.costs import weight_bytes

    arguments: dict[str, Any] = {"folder": folder, "dtype": dtype}
    found = peak_rss("benchmarks.instruments.loading:load", arguments, SIZE.threads)["increase"]
    return value_of(found) / weight_bytes(config, getattr(torch, dtype).itemsize)
