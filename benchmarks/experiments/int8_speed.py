"""L6, by the clock and by the system's account: are INT8 weights smaller, and faster?

Functions here run in fresh processes, one observation each. The weights are random: what they are
does not matter to how long they take.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any, cast

import torch

from benchmarks.experiment import Settings, experiment
from benchmarks.instruments.clock import fresh_process_samples, interleaved_durations
from benchmarks.instruments.memory import held_rss
from benchmarks.instruments.readings import Unavailable
from benchmarks.results import Measurement, measured
from benchmarks.stats import geometric_mean_ratio_interval
from reference_model.cache import KVCache
from reference_model.config import preset
from reference_model.model import GPT
from reference_model.quantization.int8 import (
    Product,
    packed_is_available,
    weight_bytes,
    with_int8_linears,
)

CLAIM = "int8.size-speed"
PAST, PROMPT = 128, 512  # tokens before a decode step, and of a prefill
ROUNDS = 9
PROCESSES = 10


def products() -> tuple[Product, ...]:
    """Those that multiply in int8 on this machine."""
    return ("int_mm", "packed") if packed_is_available() else ("int_mm",)


@experiment(CLAIM, smoke=None, quick=None, full=150, timed=("full",))
def size_speed(settings: Settings) -> list[Measurement]:
    """Bytes of GPT-2 small's weights, and seconds of a decode step and of a prefill, in turns.

    ``bytes_ratio`` and ``speedup`` are against float32; bfloat16 stands beside it. INT8 is timed on
    the CPU, whose integer products these are.
    """
    found = list(_sizes())
    if settings.device == "cpu":
        found += [*_speeds(PROCESSES)]
        found += _resident()
    return found


def _sizes() -> Iterator[Measurement]:
    model = GPT(preset("gpt2"))
    record = partial(
        measured, claim=CLAIM, choice="number format", direction="lower", source="buffers"
    )
    float_bytes = weight_bytes(model)
    yield record(float_bytes, metric="weight_bytes", unit="bytes", option="float32", parameters={})
    for product in products():
        nbytes = weight_bytes(with_int8_linears(model, product).model)
        of_product = partial(record, option=product, parameters={})
        yield of_product(nbytes, metric="weight_bytes", unit="bytes")
        yield of_product(nbytes / float_bytes, metric="bytes_ratio", unit="ratio")


def _speeds(processes: int) -> Iterator[Measurement]:
    threads = torch.get_num_threads()
    record = partial(measured, claim=CLAIM, choice="number format", source="clock", unit="ratio")
    samples = fresh_process_samples(f"{__name__}:seconds", {}, processes, threads)
    for part in ("decode", "prefill"):
        for option in samples[0][part]:
            if option in ("float32", "bfloat16"):
                continue
            for against, metric in (("float32", "speedup"), ("bfloat16", "speedup_over_bfloat16")):
                ratios = [sample[part][against] / sample[part][option] for sample in samples]
                yield record(
                    geometric_mean_ratio_interval(ratios),
                    metric=metric,
                    direction="higher",
                    option=option,
                    parameters={"part": part, "threads": threads},
                )


def seconds() -> dict[str, dict[str, float]]:
    """Of one process: part → number format → median seconds."""
    model = GPT(preset("gpt2")).eval()
    formats: dict[str, GPT] = {
        product: cast(GPT, with_int8_linears(model, product).model) for product in products()
    }
    formats["bfloat16"] = GPT(preset("gpt2")).eval().to(torch.bfloat16)
    formats["float32"] = model
    token, prompt = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, PROMPT, dtype=torch.int64)
    found = {}
    with torch.inference_mode():
        caches = {}
        for name, each in formats.items():
            caches[name] = KVCache(model.config, 1, PROMPT, each.wte.weight.dtype)
            each(prompt[:, :PAST], caches[name])
        for part, tokens, past in (("decode", token, PAST), ("prefill", prompt, 0)):
            arms = {
                name: partial(_step, each, caches[name], tokens, past)
                for name, each in formats.items()
            }
            rounds = ROUNDS if part == "decode" else 3
            durations = interleaved_durations(arms, rounds, warmup=1)
            found[part] = {name: statistics.median(taken) for name, taken in durations.items()}
    return found


def _step(model: GPT, cache: KVCache, tokens: torch.Tensor, past: int) -> None:
    cache.forget(past)
    model(tokens, cache, last_only=True)


def _resident() -> Iterator[Measurement]:
    """What a process holds beside the weights' own bytes: a float copy would be 500 MB.

    None where the system does not tell.
    """
    held = {
        name: held_rss(f"{__name__}:model_alone", {"name": name}, threads=1)
        for name in ("float32", *products())
    }
    for name in products():
        mine, floats = held[name], held["float32"]
        if isinstance(mine, Unavailable) or isinstance(floats, Unavailable):
            continue  # no verdict rests on it, and another figure would not be this one
        model = GPT(preset("gpt2"))
        saved = weight_bytes(model) - weight_bytes(with_int8_linears(model, name).model)
        yield measured(
            floats.value - mine.value - saved,
            claim=CLAIM,
            metric="resident_bytes_saved_beyond_buffers",
            unit="bytes",
            direction="none",
            choice="number format",
            option=name,
            parameters={},
            source="RSS of fresh processes",
        )


def model_alone(name: str) -> Any:
    """A model that is all that was kept, and has computed: copies may be made at the first use."""
    model: Any = GPT(preset("gpt2"))
    if name != "float32":
        model = with_int8_linears(model, cast(Product, name)).model
    with torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.int64))
    return model
