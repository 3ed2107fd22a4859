"""L5, by the clock: does memory traffic or arithmetic limit a step of the model?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.experiments.cache.speed import config_of, model_of
from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    experiment_of_cells,
)
from benchmarks.instruments.limits import (
    Bound,
    MachineLimit,
    decode_bound,
    dtype_of,
    durations_beside,
    prefill_bound,
    probes_for,
)
from benchmarks.judging.stats import Estimate, geometric_mean_ratio_interval, mean_interval
from benchmarks.record.results import Direction, Measurement, Parameter, measured
from benchmarks.subjects.built import Model, ModelConfig
from reference_model.cache import KVCache

if TYPE_CHECKING:
    from benchmarks.instruments.limits import Dtype

Sample = dict[str, Any]

# Tokens that each sequence holds before a decode step. Repeated steps see a few more, which adds
# less than 1 % to the bytes of one sequence; the bounds leave them out.
PAST = 128
PRODUCTS: tuple[Dtype, ...] = ("float32", "bfloat16")  # of which the balance is measured
DECODE_BATCHES = (1, 4, 16)
PREFILLS = (128, 512)
ROUNDS = 4  # turns of all steps in one process
STEPS = 3  # decode steps in one sample
PROCESSES: dict[Profile, int] = {"quick": 5, "full": 20}
# Where the time of a step goes by operator: those that read the weights, and those that read the
# cache, under the names that PyTorch's profiler gives them.
READERS = ("linear", "addmm", "::mm", "::mv", "matmul", "scaled_dot_product")


def cells(settings: Settings) -> list[Cell]:
    """A process at a time."""
    count = PROCESSES[settings.profile]
    return [Cell({"process": i}, timed=True, memory=2 * GIGABYTE) for i in range(count)]


def of_a_process(settings: Settings, process: int) -> Found:
    sample = step_samples(model_of(settings), settings.device, ROUNDS)
    return {"threads": torch.get_num_threads(), **sample}


@experiment_of_cells(
    "cache.memory-bound",
    cells=cells,
    measure=of_a_process,
    smoke=None,
    quick=52,
    full=220,
    of_any_model=True,
)
def memory_bound(settings: Settings, found: CellsFound) -> list[Measurement]:
    """One decode step of GPT-2 small under the roofline of the machine; prefill as the contrast.

    ``intensity_over_balance``: useful FLOPs per byte that a step has to read, over the FLOPs per
    byte at which the machine would spend as long on computing as on reading.

    ``reading_least`` is what weights and cache take to be read at the bandwidth that a plain read
    reaches in the same process, over what the step takes: an operator that reads more slowly spends
    longer. ``operator_share``, the part of the step inside the operators that read them, is the
    most that reading can have taken, since these operators compute as well: of a prefill, which
    arithmetic limits, it is as large. ``reading_share``, by which the claim is judged, is known to
    lie between the two, and its interval says so. ``computing_share`` is for arithmetic what
    ``reading_least`` is for reading. ``seconds_over_one_sequence`` needs no limit at all: that of a
    batch is 1 where only reading counts, and the batch size where only arithmetic does.
    """
    samples = [sample for _, sample in found]
    threads = samples[0]["threads"]
    kinds = dict.fromkeys((*PRODUCTS, settings.dtype))
    machine = _machine(config_of(settings), samples, threads, list(kinds))
    return [*machine, *_steps(samples, threads, settings.dtype)]


def _machine(
    config: ModelConfig, samples: Sequence[Sample], threads: int, kinds: Sequence[Dtype]
) -> Iterator[Measurement]:
    """Limits of the machine, and the intensity of a decode step over its balance, per dtype."""
    record = partial(
        measured, claim="cache.memory-bound", choice="cache", source="clock", direction="higher"
    )
    limits = [MachineLimit(**sample["limit"]) for sample in samples]
    reads = mean_interval([limit.read_bytes_per_second for limit in limits])
    stated: dict[str, Parameter] = {"threads": threads}
    machine = partial(record, option="machine")
    yield machine(reads, metric="read_bandwidth", unit="bytes/s", parameters=stated)
    for dtype in kinds:
        labels: dict[str, Parameter] = {"dtype": dtype, **stated}
        rates = mean_interval([limit.arithmetic(dtype) for limit in limits])
        balances = mean_interval([limit.balance(dtype) for limit in limits])
        yield machine(rates, metric="matrix_rate", unit="FLOP/s", parameters=labels)
        yield machine(balances, metric="balance", unit="FLOP/byte", parameters=labels)
        bounds = [decode_bound(config, PAST, limit, dtype) for limit in limits]
        over = [b.intensity / m.balance(dtype) for b, m in zip(bounds, limits, strict=True)]
        yield record(
            geometric_mean_ratio_interval(over),
            metric="intensity_over_balance",
            unit="ratio",
            option="decode",
            direction="none",
            parameters={**labels, "batch_size": 1, "past": PAST},
        )


def _steps(samples: Sequence[Sample], threads: int, dtype: str) -> Iterator[Measurement]:
    """Of each step what it costs in closed form, and the means of what was measured."""
    record = partial(measured, claim="cache.memory-bound", choice="cache", direction="none")
    for index, step in enumerate(samples[0]["steps"]):
        labels: dict[str, Parameter] = {**step["labels"], "dtype": dtype}
        intensity = partial(record, step["intensity"], metric="intensity", unit="FLOP/byte")
        yield intensity(option=step["option"], parameters=labels, source="closed form")
        for metric in step["metrics"]:
            unit, direction = METRICS[metric]
            yield record(
                mean_interval([sample["steps"][index]["metrics"][metric] for sample in samples]),
                metric=metric,
                unit=unit,
                direction=direction,
                option=step["option"],
                parameters={**labels, "threads": threads},
                source="profiler" if metric == "operator_share" else "clock",
            )
        if "reading_least" in step["metrics"]:
            yield record(
                _reading_share([sample["steps"][index]["metrics"] for sample in samples]),
                metric="reading_share",
                unit="ratio",
                option=step["option"],
                parameters={**labels, "threads": threads},
                source="clock and profiler",
            )


def _reading_share(steps: Sequence[dict[str, float]]) -> Estimate:
    """From the low end of the least to the high end of the most; a GPU's step has no most."""
    least = mean_interval([step["reading_least"] for step in steps])
    most = mean_interval([step.get("operator_share", 1.0) for step in steps])
    interval = (least.interval[0], min(1.0, most.interval[1]))
    return Estimate((least.value + most.value) / 2, interval, least.n)


# Metric of a step -> its unit, and which way is better.
METRICS: dict[str, tuple[str, Direction]] = {
    "seconds": ("s", "lower"),
    "tokens_per_second": ("tokens/s", "higher"),
    "tokens_per_second_limit": ("tokens/s", "higher"),
    "flops_per_second": ("FLOP/s", "higher"),
    "roof": ("FLOP/s", "none"),
    "share_of_limit": ("ratio", "higher"),
    "reading_least": ("ratio", "none"),
    "computing_share": ("ratio", "none"),
    "operator_share": ("ratio", "none"),
    "seconds_over_one_sequence": ("ratio", "lower"),
}


def step_samples(model: Model, device: str, rounds: int) -> Sample:
    """What one process measures: the limits of the machine, and every step's seconds, in turns."""
    decodes = {size: _decode_step(model, device, size, 2 + rounds) for size in DECODE_BATCHES}
    prefills = {length: _prefill(model, device, length) for length in PREFILLS}
    arms: dict[str, Callable[[], object]] = {
        **{f"decode {size}": partial(_repeat, step) for size, step in decodes.items()},
        **{f"prefill {length}": step for length, step in prefills.items()},
    }
    kind = dtype_of(model)
    probes = probes_for(device, *dict.fromkeys((*PRODUCTS, kind)))
    limit, seconds = durations_beside(probes, arms, rounds)
    taken = {name: statistics.median(samples) for name, samples in seconds.items()}
    one_sequence = taken["decode 1"] / STEPS
    steps = []
    for size, decode in decodes.items():
        bound = decode_bound(model.config, PAST, limit, kind, size)
        own = taken[f"decode {size}"] / STEPS
        metrics = _under_the_roof(bound, own, limit, kind)
        metrics["tokens_per_second"] = size / own
        metrics["tokens_per_second_limit"] = size / bound.seconds
        if size == 1:
            metrics["reading_least"] = bound.seconds_reading / own
            metrics |= _operator_share(decode, device)
        else:
            metrics["seconds_over_one_sequence"] = own / one_sequence
        steps.append(_step("decode", bound, metrics, batch_size=size, past=PAST))
    for length, prefill in prefills.items():
        bound = prefill_bound(model.config, length, limit, kind)
        metrics = _under_the_roof(bound, taken[f"prefill {length}"], limit, kind)
        metrics |= _operator_share(prefill, device)
        steps.append(_step("prefill", bound, metrics, batch_size=1, tokens=length))
    return {"limit": asdict(limit), "steps": steps}


def _step(option: str, bound: Bound, metrics: dict[str, float], **labels: Parameter) -> Sample:
    return {"option": option, "labels": labels, "intensity": bound.intensity, "metrics": metrics}


def _under_the_roof(
    bound: Bound, seconds: float, limit: MachineLimit, kind: str
) -> dict[str, float]:
    return {
        "seconds": seconds,
        "flops_per_second": bound.flops / seconds,
        "roof": limit.roof(bound.intensity, kind),
        "share_of_limit": bound.share(seconds),
        "computing_share": bound.seconds_computing / seconds,
    }


def _decode_step(model: Model, device: str, batch_size: int, samples: int) -> Callable[[], Tensor]:
    """One step after another on a cache of `PAST` tokens that has room for ``samples`` of them."""
    config, kind = model.config, model.wte.weight.dtype
    cache = KVCache(config, batch_size, PAST + samples * STEPS, kind, device)
    rows = torch.randn(batch_size, config.n_kv_head, PAST, config.d_head, device=device).to(kind)
    for layer in range(config.n_layer):
        cache.update(layer, rows, rows)
    token = torch.zeros(batch_size, 1, dtype=torch.int64, device=device)
    return torch.inference_mode()(lambda: model(token, cache, last_only=True))


def _prefill(model: Model, device: str, length: int) -> Callable[[], Tensor]:
    """A prompt that enters a cache, which is new each time and part of what a prefill costs."""
    tokens = torch.zeros(1, length, dtype=torch.int64, device=device)
    kind = model.wte.weight.dtype

    @torch.inference_mode()
    def prefill() -> Tensor:
        return model(tokens, KVCache(model.config, 1, length, kind, device), True)

    return prefill


def _repeat(step: Callable[[], object]) -> None:
    for _ in range(STEPS):
        step()


def _operator_share(step: Callable[[], object], device: str) -> dict[str, float]:
    """Share of a step's time inside the operators that read weights and cache; only of a CPU."""
    if device != "cpu":
        return {}
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        step()
    own = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    reading = sum(time for key, time in own.items() if any(part in key for part in READERS))
    return {"operator_share": reading / sum(own.values())}
