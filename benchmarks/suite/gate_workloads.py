"""What bench_gate.py measures: a dozen short steps that touch every choice, and their outputs.

A step can be repeated as often as wanted and always finds the same cache. As in workloads.py, only
the standard library is imported before a benchmark is set up.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from typing import TYPE_CHECKING

from benchmarks.suite import asked_model
from benchmarks.suite.codec_workloads import kv_codec, quantized_decode_step
from benchmarks.suite.int8_workloads import int8_decode_step
from benchmarks.suite.workloads import (
    PROFILE,
    Step,
    counts,
    decode_step,
    device,
    filled_cache,
    finish,
    model_of,
    of_this_commit,
    prefill_step,
    repeated_step,
    start,
    token_ids,
)

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.subjects.built import Model

# The size is the same in every profile but the smallest: calls of 10 ms at most, on one core.
MODEL = asked_model.MODEL or ("toy" if PROFILE == "smoke" else "reference")
PAST, PROMPT, SHORT = 128, 48, 32
# Layers, heads, tokens of the checkpoint's cache. A quarter of the tokens took half a millisecond,
# and up to 4 % more or less from one process to the next.
ENCODED = (6, 4, 256)
RANK = 8  # of adapters


def _decode(dtype: str = asked_model.DTYPE, **choices: str) -> Step:
    """The token after `PAST` others, again and again."""
    model = model_of(MODEL, dtype, **choices)
    return repeated_step(model, filled_cache(model, PAST, 1), PAST)


@of_this_commit()
def _decode_with_adapters() -> Step:
    """Adapters on query and value that are not merged, and add something."""
    from reference_model.lora import LoRAConfig, add_adapters

    model = deepcopy(model_of(MODEL))  # the other is the other steps'
    add_adapters(model, LoRAConfig(RANK, init_b="gaussian"))
    return repeated_step(model, filled_cache(model, PAST, 1), PAST)


@of_this_commit()
def _encode() -> Step:
    import torch

    codec = kv_codec("turboquant 3").to(device())
    dtype = getattr(torch, asked_model.DTYPE)
    x = torch.randn(*ENCODED, codec.width, device=device(), dtype=dtype)

    def step() -> None:
        codec.encode(x)
        finish()

    return step


# Name → what builds the step, and how many threads it runs on.
STEPS: dict[str, tuple[Callable[[], Step], int]] = {
    "decode": (_decode, 1),
    "decode, no cache": (lambda: decode_step(model_of(MODEL), SHORT, cached=False), 1),
    "decode, rope": (partial(_decode, position="rope"), 1),
    "decode, alibi, untied": (partial(_decode, position="alibi", head="untied"), 1),
    "decode, double rmsnorm": (partial(_decode, norm="rmsnorm", norm_placement="double"), 1),
    "decode, adapters": (_decode_with_adapters, 1),
    "decode, bfloat16": (partial(_decode, "bfloat16"), 1),
    "decode, int8": (lambda: int8_decode_step(MODEL, "int_mm", PAST), 1),
    "decode, turboquant": (lambda: quantized_decode_step(model_of(MODEL), "turboquant 3", PAST), 1),
    "encode, turboquant": (_encode, 1),
    "prefill": (lambda: prefill_step(model_of(MODEL), PROMPT), 1),
    "prefill, two threads": (lambda: prefill_step(model_of(MODEL), PROMPT), 2),
}


def gate_step(name: str) -> Step:
    """One of `STEPS`, with its threads set."""
    build, threads = STEPS[name]
    start()
    step = build()
    import torch

    torch.set_num_threads(threads)
    return step


@cache  # the gate asks for one number at a time
def counts_of(name: str) -> dict[str, int]:
    """What one call of a step makes the machine do."""
    found = counts(gate_step(name))
    moved = found.bytes_in + found.bytes_out
    return {"flops": found.flops, "operators": found.operators, "bytes_moved": moved}


# ---- outputs

OUTPUTS: dict[str, dict[str, str]] = {
    "learned": {},
    "sinusoidal": {"position": "sinusoidal"},
    "rope": {"position": "rope"},
    "alibi": {"position": "alibi"},
    "rmsnorm": {"norm": "rmsnorm"},
    "post": {"norm_placement": "post"},
    "double": {"norm_placement": "double"},
    "deepnorm": {"norm_placement": "deepnorm"},
    "untied": {"head": "untied"},
    "adapters, lora": {},
    "adapters, rslora": {},
}


@cache  # two numbers are made of them
def outputs_of(name: str) -> tuple[Tensor, Tensor]:
    """Logits (T, V) of a fixed prompt: read at once, and through a cache, half of it one by one.

    The other half is read at once into the cache: an offset of all positions alike would not show.
    """
    import torch

    kind, _, scaling = name.partition(", ")
    model = _with_fixed_weights(OUTPUTS[name], scaling if kind == "adapters" else None)
    tokens = (token_ids(model, SHORT) * 37 + 11) % model.config.vocab_size
    kv = filled_cache(model, 0, SHORT)
    with torch.inference_mode():
        at_once = model(tokens)[0]
        pieces = (tokens[:, : SHORT // 2], *tokens[:, SHORT // 2 :].split(1, dim=1))
        cached = torch.cat([model(piece, kv)[0] for piece in pieces])
    return at_once, cached


@of_this_commit()
def _with_fixed_weights(choices: dict[str, str], adapters: str | None) -> Model:
    """A model whose weights depend on the parameters' names alone, not on how they are drawn.

    ``adapters``: the scaling law of those on query and value; None: there are none.

    They are larger than at a start, so that a change of attention shows in the logits.
    """
    import torch

    model = deepcopy(model_of(MODEL, **choices))  # the other is the steps'
    if adapters is not None:
        from reference_model.lora import LoRAConfig, add_adapters

        add_adapters(model, LoRAConfig(RANK, scaling=adapters))  # type: ignore[arg-type]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
                drawn = torch.randn(parameter.shape, generator=generator)
                # Adapters that outweigh the model make it amplify what rounding leaves: a scale
                # that was multiplied in elsewhere moved logits by a thousandth.
                size = 0.2 if ".adapters." in name else 2
                parameter.copy_(drawn * size / parameter.shape[1] ** 0.5)
    return model


def fingerprint(logits: Tensor) -> float:
    """One number that moves by about as much as logits do: their projection, over their norm."""
    import torch

    flat = logits.double().flatten()
    direction = torch.arange(len(flat), dtype=torch.float64, device=flat.device).mul_(1.7).cos()
    # 2 is added, so that a number that may be near to 0 has a sensible relative change.
    return 2 + float(flat @ direction / flat.norm())


def cached_deviation(at_once: Tensor, cached: Tensor) -> float:
    """Largest difference of a logit, over the logits' root mean square."""
    return float((at_once - cached).abs().max() / at_once.square().mean().sqrt())
