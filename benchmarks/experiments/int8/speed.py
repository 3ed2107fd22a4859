"""L6, by the clock and by the system's account: are INT8 weights smaller, and faster?

One process is one observation. The weights are random: what they are
does not matter to how long they take.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

import torch

from benchmarks.experiments.cache.speed import model_of
from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Found,
    Settings,
    experiment_of_cells,
)
from benchmarks.instruments.clock import interleaved_durations
from benchmarks.instruments.memory import held_rss
from benchmarks.instruments.readings import Unavailable
from benchmarks.judging.stats import geometric_mean_ratio_interval
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model
from reference_model.cache import KVCache
from reference_model.config import preset
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


def cells(settings: Settings) -> list[Cell]:
    """What is counted, a process at a time what is timed, and what the system says is held."""
    found = [Cell({"part": "sizes"}, share=3, memory=2 * GIGABYTE)]
    if settings.device == "cpu":
        timed = partial(Cell, timed=True, memory=4 * GIGABYTE)
        found += [timed({"part": "seconds", "process": i}, share=14) for i in range(PROCESSES)]
        if settings.of_reference:
            found.append(timed({"part": "resident"}, share=15))
    return found


def of_a_cell(settings: Settings, part: str, process: int = 0) -> Found:
    """Bytes of weights by number format; seconds of one process; bytes that processes hold."""
    if part == "resident":
        return resident()
    model = model_of(settings)
    if settings.dtype != "float32":  # with which the claim compares
        model = copy.deepcopy(model).float()
    if part == "sizes":
        return sizes(model)
    return {"threads": torch.get_num_threads(), "seconds": seconds(model)}


@experiment_of_cells(
    CLAIM,
    cells=cells,
    measure=of_a_cell,
    smoke=None,
    quick=None,
    full=150,
    of_any_model=True,
)
def size_speed(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Bytes of GPT-2 small's weights, and seconds of a decode step and of a prefill, in turns.

    ``bytes_ratio`` and ``speedup`` are against float32; bfloat16 stands beside it. INT8 is timed on
    the CPU, whose integer products these are. Of another subject its own, without what the system
    says that a process holds.
    """
    by_part: dict[Parameter, list[Found]] = {}
    for labels, of_cell in found:
        by_part.setdefault(labels["part"], []).append(of_cell)
    (in_buffers,) = by_part["sizes"]
    measurements = list(_sizes(in_buffers))
    if samples := by_part.get("seconds"):
        measurements += _speeds(samples)
    for held in by_part.get("resident", ()):
        measurements += _resident(held, in_buffers)
    return measurements


def sizes(model: Model) -> dict[str, int]:
    """Number format → bytes of the model's weights."""
    found: dict[str, int] = {"float32": weight_bytes(model)}
    for product in products():
        found[product] = weight_bytes(with_int8_linears(model, product).model)
    return found


def _sizes(in_buffers: Mapping[str, int]) -> Iterator[Measurement]:
    record = partial(
        measured, claim=CLAIM, choice="number format", direction="lower", source="buffers"
    )
    for option, nbytes in in_buffers.items():
        of_option = partial(record, option=option, parameters={})
        yield of_option(nbytes, metric="weight_bytes", unit="bytes")
        if option != "float32":
            ratio = nbytes / in_buffers["float32"]
            yield of_option(ratio, metric="bytes_ratio", unit="ratio")


def _speeds(samples: Sequence[Mapping[str, Any]]) -> Iterator[Measurement]:
    record = partial(measured, claim=CLAIM, choice="number format", source="clock", unit="ratio")
    taken, threads = [sample["seconds"] for sample in samples], samples[0]["threads"]
    for part in ("decode", "prefill"):
        for option in taken[0][part]:
            if option in ("float32", "bfloat16"):
                continue
            for against, metric in (("float32", "speedup"), ("bfloat16", "speedup_over_bfloat16")):
                ratios = [each[part][against] / each[part][option] for each in taken]
                yield record(
                    geometric_mean_ratio_interval(ratios),
                    metric=metric,
                    direction="higher",
                    option=option,
                    parameters={"part": part, "threads": threads},
                )


def seconds(model: Model) -> dict[str, dict[str, float]]:
    """Of one process: part → number format → median seconds."""
    formats: dict[str, Model] = {
        product: cast(Model, with_int8_linears(model, product).model) for product in products()
    }
    formats["bfloat16"] = copy.deepcopy(model).to(torch.bfloat16)
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


def _step(model: Model, cache: KVCache, tokens: torch.Tensor, past: int) -> None:
    cache.forget(past)
    model(tokens, cache, last_only=True)


def resident() -> dict[str, float | None]:
    """Number format → bytes that a fresh process holds; None where the system does not tell."""
    found = {
        name: held_rss(f"{__name__}:model_alone", {"name": name}, threads=1)
        for name in ("float32", *products())
    }
    return {k: None if isinstance(v, Unavailable) else v.value for k, v in found.items()}


def _resident(
    held: Mapping[str, float | None], in_buffers: Mapping[str, int]
) -> Iterator[Measurement]:
    """What a process holds beside the weights' own bytes: a float copy would be 500 MB.

    No verdict rests on it, and where the system does not tell, another figure would not be this.
    """
    for name, mine in held.items():
        floats = held["float32"]
        if name == "float32" or mine is None or floats is None:
            continue
        yield measured(
            floats - mine - (in_buffers["float32"] - in_buffers[name]),
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
    model: Any = Model(preset("gpt2"))
    if name != "float32":
        model = with_int8_linears(model, cast(Product, name)).model
    with torch.inference_mode():
        model(torch.zeros(1, 1, dtype=torch.int64))
    return model
