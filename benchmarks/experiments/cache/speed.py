"""L5, by the clock: how much faster a KV cache makes generation, against the length.

Every speed stands beside the limit of the machine, whose probes take turns with what is measured
in the same process.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.experiments.experiment import (
    GIGABYTE,
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    experiment_of_cells,
)
from benchmarks.instruments.clock import (
    GenerationTiming,
    generation_timing,
    interleaved_durations,
)
from benchmarks.instruments.limits import (
    MachineLimit,
    bytes_per_value,
    decode_bound,
    dtype_of,
    limit_from,
    prefill_bound,
    probes_for,
)
from benchmarks.judging.stats import geometric_mean_ratio_interval, mean_interval
from benchmarks.record.results import Measurement, Parameter, measured
from benchmarks.subjects.built import Model, ModelConfig
from benchmarks.subjects.subject import subject_of
from reference_model.config import preset
from reference_model.costs import generation_flops, read_weight_bytes
from reference_model.generate import generate

if TYPE_CHECKING:
    from benchmarks.instruments.limits import Dtype

Sample = dict[str, Any]

SHORT = (1, 15)  # prompt and new tokens, as the claim about 15 tokens counts them
LONG_PROMPT = 128
# One run is read off at each of these lengths: its first tokens do not know how many will follow.
LENGTHS: dict[Profile, tuple[int, ...]] = {
    "quick": (4, 8, 16, 32),
    "full": (4, 8, 16, 32, 64, 128, 256, 512),
}
# Processes in all, and those of them that generate at length too, which takes many times as long.
PROCESSES: dict[Profile, tuple[int, int]] = {"quick": (7, 3), "full": (20, 5)}
ROUNDS = 3  # alternations of both arms in one process
OPTIONS = {"cached": True, "uncached": False}


def cells(settings: Settings) -> list[Cell]:
    """A process at a time; the first ones generate at length, too."""
    most = max(LENGTHS[settings.profile])
    processes, long_processes = PROCESSES[settings.profile]
    of_long = most * (LONG_PROMPT + most / 2) / 800  # each token that is seen costs as much
    return [
        Cell(
            {"process": index, "long": index < long_processes},
            share=3 + of_long * (index < long_processes),
            timed=True,
            memory=2 * GIGABYTE,
        )
        for index in range(processes)
    ]


def of_a_process(settings: Settings, process: int, long: bool) -> Found:
    runs = [{"prompt_tokens": SHORT[0], "lengths": [SHORT[1]], "rounds": ROUNDS}]
    if long:
        lengths = list(LENGTHS[settings.profile])
        runs.append({"prompt_tokens": LONG_PROMPT, "lengths": lengths, "rounds": 1})
    found = generation_samples(model_of(settings), settings.device, runs)
    return {"threads": torch.get_num_threads(), **found}


@experiment_of_cells(
    "cache.fifteen-tokens",
    cells=cells,
    measure=of_a_process,
    smoke=None,
    quick=77,
    full=1300,
    of_any_model=True,
)
def fifteen_tokens(settings: Settings, processes: CellsFound) -> list[Measurement]:
    """GPT-2 small with and without a cache: tokens a second, their ratio, and share of the limit.

    Of another subject, its own speeds.

    15 tokens from one are the claim; a longer prompt and more tokens show how it depends on the
    length. Beside them stands the work that was asked for: FLOPs of the whole generation, and
    bytes of weights read per token, which are the same in both arms.
    """
    samples = [sample for _, sample in processes]
    threads, lengths = samples[0]["threads"], LENGTHS[settings.profile]
    config = config_of(settings)
    found: list[Measurement] = []
    for prompt_tokens, new_tokens in (SHORT, *((LONG_PROMPT, length) for length in lengths)):
        labels: dict[str, Parameter] = {
            "new_tokens": new_tokens,
            "prompt_tokens": prompt_tokens,
            "batch_size": 1,
        }
        key = f"{prompt_tokens}+{new_tokens}"
        own = [sample[key] for sample in samples if key in sample]
        whole_run = new_tokens in (SHORT[1], max(lengths))
        found += _speeds(own, new_tokens, {**labels, "threads": threads}, whole_run)
        found += _work(config, prompt_tokens, new_tokens, labels, settings.dtype)
    return found


def _speeds(
    samples: Sequence[Sample], new_tokens: int, labels: dict[str, Parameter], whole_run: bool
) -> Iterator[Measurement]:
    """Both arms' speeds; of a whole run also prefill and decode apart, and against the limit."""
    record = partial(
        measured, claim="cache.fifteen-tokens", choice="cache", source="clock", parameters=labels
    )
    ratios = [sample["uncached"]["seconds"] / sample["cached"]["seconds"] for sample in samples]
    yield record(
        geometric_mean_ratio_interval(ratios),
        metric="speedup",
        unit="ratio",
        option="cached",
        direction="higher",
    )
    for option in OPTIONS:
        own = [sample[option] for sample in samples]
        seconds = [sample["seconds"] for sample in own]
        lower = partial(record, option=option, direction="lower")
        higher = partial(record, option=option, direction="higher")
        rates = mean_interval([new_tokens / taken for taken in seconds])
        yield lower(mean_interval(seconds), metric="seconds", unit="s")
        yield higher(rates, metric="tokens_per_second", unit="tokens/s")
        if not whole_run:
            continue
        for metric, unit in (("first_token_seconds", "s"), ("seconds_per_token", "s/token")):
            yield lower(mean_interval([s[metric] for s in own]), metric=metric, unit=unit)
        for part in ("first token", "later tokens"):
            shares = mean_interval([sample["share_of_limit"][part] for sample in own])
            parameters = {**labels, "part": part}
            yield higher(shares, metric="share_of_limit", unit="ratio", parameters=parameters)


def _work(
    config: ModelConfig,
    prompt_tokens: int,
    new_tokens: int,
    labels: dict[str, Parameter],
    kind: Dtype,
) -> Iterator[Measurement]:
    """Both arms' FLOPs over the run, and weight bytes per token, in closed form."""
    record = partial(
        measured,
        claim="cache.fifteen-tokens",
        choice="cache",
        source="closed form",
        direction="lower",
        parameters=labels,
    )
    for option, use_cache in OPTIONS.items():
        flops = generation_flops(config, prompt_tokens, new_tokens, use_cache=use_cache)
        nbytes = read_weight_bytes(config, bytes_per_value(kind))
        yield record(flops, metric="flops", unit="FLOP", option=option)
        yield record(nbytes, metric="weight_bytes", unit="bytes/token", option=option)


def model_of(settings: Settings) -> Model:
    """GPT-2 small, or another subject.

    Its weights are random: what they are does not matter to how long they take.
    """
    if not settings.of_reference:
        return subject_of(settings).model()
    return Model(preset("gpt2")).to(settings.device).eval()


def config_of(settings: Settings) -> ModelConfig:
    """Of the same."""
    return preset("gpt2") if settings.of_reference else subject_of(settings).config


def generation_samples(model: Model, device: str, runs: list[dict[str, Any]]) -> Sample:
    """What one process measures: of each run and length, "prompt+new", both arms' speeds."""
    found: Sample = {}
    for run in runs:
        found |= _generation_run(model, device, **run)
    return found


def _generation_run(
    model: Model, device: str, prompt_tokens: int, lengths: list[int], rounds: int
) -> Sample:
    """Both arms take turns; the one that begins takes turns too, and probes run before each."""
    prompt = torch.zeros(1, prompt_tokens, dtype=torch.int64, device=device)
    kind = dtype_of(model)
    probes = probes_for(device, kind)
    timings: dict[str, list[GenerationTiming]] = {option: [] for option in OPTIONS}
    probed: dict[str, list[float]] = {probe.name: [] for probe in probes}

    def probe() -> None:
        arms = {probe.name: probe.function for probe in probes}
        for name, seconds in interleaved_durations(arms, rounds=3).items():
            probed[name] += seconds

    for use_cache in OPTIONS.values():  # warm up
        generate(model, prompt, 2, use_cache=use_cache)
    for turn in range(rounds):
        for option in list(OPTIONS) if turn % 2 == 0 else reversed(list(OPTIONS)):
            probe()
            timing = generation_timing(model, prompt, max(lengths), OPTIONS[option])
            timings[option].append(timing)
    probe()
    limit = limit_from(probes, probed)
    return {
        f"{prompt_tokens}+{length}": {
            option: _summary(taken, length, prompt_tokens, model.config, limit, option, kind)
            for option, taken in timings.items()
        }
        for length in lengths
    }


def _summary(
    timings: Sequence[GenerationTiming],
    new_tokens: int,
    prompt_tokens: int,
    config: ModelConfig,
    limit: MachineLimit,
    option: str,
    kind: Dtype,
) -> Sample:
    """The median round's speeds over the first ``new_tokens`` of each generation."""
    taken = [GenerationTiming(t.first_token, t.steps[: new_tokens - 1]) for t in timings]
    first_token = statistics.median(timing.first_token for timing in taken)
    later = statistics.median(sum(timing.steps) for timing in taken)
    seen = range(prompt_tokens + 1, prompt_tokens + new_tokens)  # tokens that each step sees
    ideal = [
        # The last of them is new; without a cache they all are, as in a prompt.
        decode_bound(config, tokens - 1, limit, kind).seconds
        if OPTIONS[option]
        else prefill_bound(config, tokens, limit, kind).seconds
        for tokens in seen
    ]
    return {
        "seconds": statistics.median(timing.total for timing in taken),
        "first_token_seconds": first_token,
        "seconds_per_token": statistics.median(timing.seconds_per_token for timing in taken),
        "share_of_limit": {
            "first token": prefill_bound(config, prompt_tokens, limit, kind).share(first_token),
            "later tokens": sum(ideal) / later,
        },
    }
