"""What the benchmarks of files run: reading the folder of a published family into a model."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from benchmarks.workloads import SIZE, check_choices, of_this_commit, start, value_of

if TYPE_CHECKING:
    from reference_model.config import GPTConfig

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
def saved(family: str) -> tuple[TemporaryDirectory[str], GPTConfig]:
    """A folder of float32 weights, and the model's configuration."""
    start()
    from reference_model.config import preset
    from reference_model.export import save_huggingface
    from reference_model.model import GPT

    check_choices(FAMILIES[family])
    config = preset(SIZE.model, **FAMILIES[family])
    folder = TemporaryDirectory()
    save_huggingface(GPT(config), Path(folder.name))
    return folder, config


def peak_over_weights(folder: str, config: GPTConfig, dtype: str) -> float:
    """The most that loading adds to a fresh process, over what the model itself takes."""
    import torch

    from benchmarks.instruments.memory import peak_rss
    from reference_model.costs import weight_bytes

    arguments: dict[str, Any] = {"folder": folder, "dtype": dtype}
    found = peak_rss("benchmarks.instruments.loading:load", arguments, SIZE.threads)["increase"]
    return value_of(found) / weight_bytes(config, getattr(torch, dtype).itemsize)
