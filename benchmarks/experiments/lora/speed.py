"""L1, LoRA: how much longer an adapted linear takes than the plain one, and a merged one.

One process is one observation; the arms take turns within it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from benchmarks.instruments.clock import interleaved_durations
from benchmarks.judging.stats import geometric_mean_ratio_interval
from benchmarks.record.results import Measurement, measured
from reference_model.linear import Linear
from reference_model.lora import LoRAConfig, LoRALinear

RANK, WIDTH, TOKENS = 16, 768, 512
# name → outputs of the linear, and which of them are adapted
LINEARS: dict[str, tuple[int, tuple[slice, ...]]] = {
    "attn.c_proj": (WIDTH, (slice(0, WIDTH),)),
    "attn.c_attn, query and value": (
        3 * WIDTH,
        (slice(0, WIDTH), slice(2 * WIDTH, 3 * WIDTH)),
    ),
}
ROUNDS, WARMUP = 60, 5


def forward_ratios(claim: str, samples: Sequence[Mapping[str, Any]]) -> Iterator[Measurement]:
    """Seconds of an adapted and of a merged forward over the plain linear's, of `one_sample` each.

    On the CPU, of 512 tokens, 768 wide, at rank 16; adapters that share an input each multiply it.
    """
    taken, threads = [sample["seconds"] for sample in samples], samples[0]["threads"]
    for linear in LINEARS:
        for arm in ("adapted", "merged"):
            ratios = [each[linear][arm] / each[linear]["plain"] for each in taken]
            yield measured(
                geometric_mean_ratio_interval(ratios),
                claim=claim,
                metric=f"{arm}_forward_ratio",
                unit="ratio",
                direction="lower",
                choice="adapters",
                option="LoRA",
                parameters={"linear": linear, "rank": RANK, "tokens": TOKENS, "threads": threads},
                source="clock",
            )


def one_sample() -> dict[str, Any]:
    """What one process measures."""
    return {"threads": torch.get_num_threads(), "seconds": seconds()}


def seconds() -> dict[str, dict[str, float]]:
    """Linear → arm → median seconds."""
    found = {}
    x = torch.randn(1, TOKENS, WIDTH)
    with torch.inference_mode():
        for name in LINEARS:
            durations = interleaved_durations(arms(name, x), ROUNDS, WARMUP)
            found[name] = {arm: statistics.median(taken) for arm, taken in durations.items()}
    return found


def arms(name: str, x: torch.Tensor) -> dict[str, Callable[[], torch.Tensor]]:
    """A plain linear, one of the same shape with adapters beside it, and one with them merged."""
    outputs, slices = LINEARS[name]
    config = LoRAConfig(RANK, init_b="gaussian")
    adapted, merged = (LoRALinear(Linear(WIDTH, outputs), config, slices) for _ in range(2))
    merged.merge()
    return {
        "plain": partial(Linear(WIDTH, outputs), x),
        "adapted": partial(adapted.eval(), x),
        "merged": partial(merged.eval(), x),
    }
