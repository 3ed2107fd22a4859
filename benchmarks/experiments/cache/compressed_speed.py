"""L5, by the clock: what a compressed cache costs, or saves, in time and at the peak of memory.

Everything is a ratio to the uncompressed cache in float32. One process is one observation.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from unittest import mock

import torch

from benchmarks.experiments.cache.compressed_samples import BATCH, HALF, PARTS, UNCOMPRESSED
from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Found,
    Settings,
    Unavailable,
    experiment_of_cells,
)
from benchmarks.judging.stats import Estimate, geometric_mean_ratio_interval, mean_interval
from benchmarks.record.results import Direction, Measurement, Parameter, measured
from reference_model.kernels.compiled import VARIABLE, library
from reference_model.kernels.packed_attention import SOURCE

CLAIM = "cache.compressed-speed"
KERNELS = ("compiled", "plain")
TOKENS = (1024, 4096, 16_384)  # that a cache holds before a step
PROMPT, ENCODED = 4096, 1024  # tokens of a prefill, and of what is only encoded
OTHER_STEPS = 4096  # tokens before a step of another shape
PROCESSES = 5
# Part → whose step it is.
STEPS: dict[str, dict[str, Parameter]] = {
    "step": {"batch": 1, "kv_heads": "all"},
    "grouped step": {"batch": 1, "kv_heads": "a quarter"},
    "batched step": {"batch": BATCH, "kv_heads": "all"},
}
OPTIONS = {UNCOMPRESSED: "float32", HALF: "bfloat16"}


def first(values: Sequence[float]) -> float:
    """Of an exact number, which every process finds."""
    return values[0]


# Metric → what becomes of one number for each process, its unit, which way is better, its source.
METRICS: dict[str, tuple[Callable[..., Estimate | float], str, Direction, str]] = {
    "speed_over_uncompressed": (geometric_mean_ratio_interval, "ratio", "higher", "clock"),
    "speed_by_bytes": (first, "ratio", "none", "buffers"),
    "step_seconds": (mean_interval, "s", "lower", "clock"),
    "page_faults": (mean_interval, "faults/step", "lower", "getrusage"),
    "prefill_speed_over_uncompressed": (geometric_mean_ratio_interval, "ratio", "higher", "clock"),
    "encoding": (geometric_mean_ratio_interval, "copies of the tensor", "lower", "clock"),
    "peak_over_uncompressed": (geometric_mean_ratio_interval, "ratio", "lower", "RSS"),
}


def cells(settings: Settings) -> list[Cell]:
    """Each part with each kind of kernels, a process at a time."""
    parts = [("step", tokens, 8 + tokens / 1000) for tokens in TOKENS]
    parts += [("encoding", ENCODED, 6), ("prefill", PROMPT, 50), ("peak", PROMPT, 40)]
    parts += [("grouped step", OTHER_STEPS, 8), ("batched step", OTHER_STEPS, 17)]
    return [
        Cell(
            {"part": part, "tokens": tokens, "kernels": kernels, "process": i},
            share,
            timed=True,
            memory=(6 if part == "batched step" else 5) * GIGABYTE,
        )
        for part, tokens, share in parts
        for kernels in KERNELS
        for i in range(PROCESSES)
    ]


def of_a_cell(settings: Settings, part: str, tokens: int, kernels: str, process: int) -> Found:
    """By metric and bits what one process measures, and its threads."""
    if settings.device != "cpu":
        raise Unavailable(
            "this times kernels for a CPU; for a GPU run python -m benchmarks.peers."
            f"compressed_speed --device {settings.device}"
        )
    with mock.patch.dict(os.environ, {VARIABLE: kernels}), torch.inference_mode():
        if kernels == "compiled" and library(SOURCE) is None:
            raise Unavailable("attention is not compiled here; install a C++ compiler such as g++")
        found = PARTS[part](settings, tokens)
    return {"threads": torch.get_num_threads(), "found": found}


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_cell,
    smoke=None,
    quick=None,
    full=1550,
    of_any_model=True,
)
def compressed_speed(settings: Settings, found: CellsFound) -> list[Measurement]:
    """A decode step over TurboQuant's cache and over one in bfloat16, beside one over float32.

    GPT-2 small's shape with random weights, or another subject's: what they are does not matter to
    how long they take. Two more steps are those of a batch, and of a quarter of the heads of keys
    and values, which queries then share. ``speed_by_bytes`` is the ideal of a step that does
    nothing but read weights and cache. ``peak_over_uncompressed`` is of a prefill and some steps,
    above the weights.
    """
    samples: dict[str, tuple[dict[str, Parameter], list[float]]] = {}
    for labels, sample in found:
        shown = {"tokens": labels["tokens"], "kernels": labels["kernels"]}
        shown |= STEPS.get(str(labels["part"]), {})
        for metric, of_bits in sample["found"].items():
            for bits, value in of_bits.items():
                named = {"bits": int(bits), **shown, "threads": sample["threads"]}
                samples.setdefault(f"{metric} {named}", (named, []))[1].append(value)
    return [_measured(key.split()[0], *of_key) for key, of_key in samples.items()]


def _measured(metric: str, labels: dict[str, Parameter], values: Sequence[float]) -> Measurement:
    summary, unit, direction, source = METRICS[metric]
    return measured(
        summary(values),
        claim=CLAIM,
        metric=metric,
        unit=unit,
        direction=direction,
        choice="cache format",
        option=OPTIONS.get(int(labels["bits"]), "turboquant"),
        parameters=labels,
        source=source,
    )
