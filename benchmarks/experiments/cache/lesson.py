"""L5: what a KV cache changes (speed, memory, projections) and what it must not (the output)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

import torch
from torch import Tensor, nn

from benchmarks.experiments.experiment import (
    Cell,
    CellsFound,
    Found,
    Profile,
    Settings,
    as_found,
    experiment,
    experiment_of_cells,
    joined,
)
from benchmarks.instruments.memory import allocator_peak
from benchmarks.instruments.readings import Reading
from benchmarks.judging.stats import Estimate
from benchmarks.record.results import Direction, Measurement, Parameter, measured
from benchmarks.subjects.built import Model, ModelConfig
from benchmarks.subjects.subject import Subject, subject_of
from reference_model.cache import KVCache
from reference_model.config import preset
from reference_model.costs import kv_cache_bytes, kv_row_projections
from reference_model.generate import generate
from reference_model.parts import parts_with

SAME = "cache.same-output"
NEW_TOKENS, PROMPT_TOKENS = 15, 1  # as the claims about 15 tokens count them

LENGTHS: dict[Profile, tuple[int, ...]] = {
    "smoke": (1, 2, 33, 70),
    "quick": (1, 2, 33, 512),
    "full": (1, 2, 33, 128, 255, 256, 511, 512),
}
BATCH_SIZES = (1, 4)
# Name -> the sizes of the pieces in which a prompt of a given length enters the cache.
CHUNKINGS: dict[str, Callable[[int], list[int]]] = {
    "one token at a time": lambda length: [1] * length,
    "half at once, then one at a time": lambda length: (
        [length // 2] * (length > 1) + [1] * (length - length // 2)
    ),
    "pieces of 7": lambda length: pieces(length, (7,)),
    "pieces of 1, 64, 3 and 20": lambda length: pieces(length, (1, 64, 3, 20)),
}
MOST_OF_LARGE = 64  # tokens that a large model reads, or generates: each is a step of its own
# Prompt and new tokens of the greedy runs; both together fit the checkpoint's context.
GREEDY: dict[Profile, tuple[tuple[int, int], ...]] = {
    "smoke": ((1, 15), (70, 15)),
    "quick": ((1, 60), (37, 60), (400, 15)),
    "full": ((1, 511), (37, 400), (256, 256), (400, 112)),
}


def pieces(length: int, sizes: tuple[int, ...]) -> list[int]:
    """``length`` cut into pieces of these sizes, in turn; the last one takes what is left."""
    cut: list[int] = []
    while (left := length - sum(cut)) > 0:
        cut.append(min(left, sizes[len(cut) % len(sizes)]))
    return cut


# Beside the run's dtype: what a cache does wrong stays in it, what float32 rounds away does not.
EXACT = "float64"


def cells_of_outputs(settings: Settings) -> list[Cell]:
    """A cell for each precision and batch size, and one for each greedy run.

    Several sequences in float64 take longest and are read in full runs alone: what a cache does
    wrong to one of several is there in float32 as well.
    """
    return [
        *(
            Cell({"dtype": dtype, "batch_size": batch_size}, share=batch_size)
            for dtype in dict.fromkeys((settings.dtype, EXACT))
            for batch_size in BATCH_SIZES
            if settings.profile == "full" or dtype != EXACT or batch_size == 1
        ),
        *(
            Cell({"batch_size": batch_size, "prompt_tokens": prompt, "new_tokens": new}, share=4)
            for batch_size, (prompt, new) in product(BATCH_SIZES, _runs(settings))
        ),
    ]


def of_an_output(settings: Settings, batch_size: int, dtype: str = "", **run: int) -> Found:
    """Logits at a precision, or the tokens of a greedy run in the run's own."""
    subject, record = subject_of(settings), _recorder(SAME, "checkpoint")
    text = subject.tokens()
    if dtype:
        model = subject.model(torch.float64 if dtype == EXACT else None)
        return as_found(_deviations(model, text, record, _lengths(settings), dtype, batch_size))
    model = subject.model()
    prompts = prompts_from(text, batch_size, run["prompt_tokens"])
    differing = tokens_differing(model, prompts, run["new_tokens"])
    labels = {"batch_size": batch_size, **run}
    return as_found([record("tokens_differing", "tokens", differing, "cached", **labels)])


def _lengths(settings: Settings) -> tuple[int, ...]:
    """Of the profile's prompts, those that the model reads; what is longer is as long as it can."""
    subject = subject_of(settings)
    most = _most_tokens(subject)
    return tuple(dict.fromkeys(min(length, most) for length in LENGTHS[settings.profile]))


def _runs(settings: Settings) -> list[tuple[int, int]]:
    """Prompt and new tokens of the profile's greedy runs, as far as the model's context goes."""
    most = _most_tokens(subject_of(settings))
    found = []
    for prompt, new in GREEDY[settings.profile]:
        given = prompt if prompt + new <= most else min(prompt, most // 2)
        found.append((given, min(new, most - given)))
    return list(dict.fromkeys(found))


def _most_tokens(subject: Subject) -> int:
    return MOST_OF_LARGE if subject.is_large else subject.window


def _deviations(
    model: Model,
    text: Tensor,
    record: Callable[..., Measurement],
    lengths: tuple[int, ...],
    dtype: str,
    batch_size: int,
) -> Iterator[Measurement]:
    labels = {"dtype": dtype, "batch_size": batch_size, "longest": max(lengths)}
    prompts = [prompts_from(text, batch_size, length) for length in lengths]
    for name, chunking in CHUNKINGS.items():
        worst = max(logit_deviation(model, p, chunking(p.shape[1])) for p in prompts)
        yield record("logit_deviation", "1", worst, "cached", chunking=name, **labels)
    alone = max(deviation_without_cache(model, p) for p in prompts)
    yield record("deviation_without_cache", "1", alone, "uncached", **labels)


@experiment_of_cells(
    SAME,
    cells=cells_of_outputs,
    measure=of_an_output,
    smoke=6,
    quick=30,
    full=120,
    of_any_model=True,
)
def same_output(settings: Settings, found: CellsFound) -> list[Measurement]:
    """Logits of the checkpoint on real prompts, and its greedy tokens, with and without a cache.

    Beside them stands what float arithmetic does alone: how far the logits of a passage move when
    it is read without a cache twice, once as part of a longer one.
    """
    return joined(settings, found)


def prompts_from(text: Tensor, batch_size: int, length: int) -> Tensor:
    """(B, length): passages of a text (N,), evenly spread over it."""
    starts = torch.arange(batch_size) * (len(text) // batch_size)
    return torch.stack([text[start : start + length] for start in starts.tolist()])


@torch.inference_mode()
def logit_deviation(model: Model, tokens: Tensor, chunks: list[int]) -> float:
    """Largest |difference| of any logit of tokens (B, T), read in ``chunks`` through a cache."""
    batch_size, length = tokens.shape
    cache = KVCache(model.config, batch_size, length, model.wte.weight.dtype, tokens.device)
    cached = [model(piece, cache) for piece in tokens.split(chunks, dim=1)]
    return float((torch.cat(cached, dim=1) - model(tokens)).abs().max())


@torch.inference_mode()
def deviation_without_cache(model: Model, tokens: Tensor) -> float:
    """Largest |difference| of any logit of the first half of tokens (B, T), read alone or in T."""
    half = (tokens.shape[1] + 1) // 2
    return float((model(tokens[:, :half]) - model(tokens)[:, :half]).abs().max())


def tokens_differing(model: Model, prompts: Tensor, new_tokens: int) -> int:
    """How many of the greedily generated tokens are not the same with and without a cache."""
    with_cache, without = (
        generate(model, prompts, new_tokens, use_cache=use_cache) for use_cache in (True, False)
    )
    return int((with_cache != without).sum())


@experiment("cache.fifteenfold-projections", smoke=0.5, quick=0.5, full=0.5, of_any_model=True)
def fifteenfold_projections(settings: Settings) -> list[Measurement]:
    """Rows that one layer projects to keys and values, counted over a real generation."""
    of_reference = settings.of_reference
    model = Model(preset("toy")).eval() if of_reference else subject_of(settings).model()
    prompt = torch.zeros(1, PROMPT_TOKENS, dtype=torch.int64, device=model.wte.weight.device)
    cached, uncached = (counted_rows(model, prompt, NEW_TOKENS, use) for use in (True, False))
    for rows, use_cache in ((cached, True), (uncached, False)):
        law = kv_row_projections(PROMPT_TOKENS, NEW_TOKENS, use_cache=use_cache)
        if rows != law:
            raise ValueError(f"counted {rows} rows, the closed form says {law}")
    record = _recorder("cache.fifteenfold-projections", "counted")
    labels: dict[str, Parameter] = {"new_tokens": NEW_TOKENS, "prompt_tokens": PROMPT_TOKENS}
    found = [
        record("projection_ratio", "ratio", ratio, "cached", "higher", counted=counted, **labels)
        for counted, ratio in (
            ("whole run", sum(uncached) / sum(cached)),
            ("last step", uncached[-1] / cached[-1]),
        )
    ]
    for option, rows in (("cached", cached), ("uncached", uncached)):
        found += [
            record("row_projections", "rows", count, option, "lower", step=step, **labels)
            for step, count in enumerate(rows, start=1)
        ]
    return found


def counted_rows(model: Model, prompt: Tensor, new_tokens: int, use_cache: bool) -> list[int]:
    """Rows that become keys at each step of a generation, the same in each layer.

    Raises ValueError where layers differ.
    """
    layers: list[list[int]] = [[] for _ in model.h]

    def counter(layer: int) -> Callable[[nn.Module, tuple[Tensor], Tensor], None]:
        return lambda module, inputs, output: layers[layer].append(output[..., 0].numel())

    handles = [
        part.module.register_forward_hook(counter(layer))
        for layer, part in enumerate(parts_with(model, "key"))
    ]
    try:
        generate(model, prompt, new_tokens, use_cache=use_cache)
    finally:
        for handle in handles:
            handle.remove()
    if any(rows != layers[0] for rows in layers):
        raise ValueError(f"layers project different numbers of rows: {layers}")
    return layers[0]


DTYPES = {"float32": (torch.float32, 4), "float16": (torch.float16, 2)}
CAPACITY = 512
ALLOCATED = "allocated"


@experiment("cache.memory-law", smoke=1, quick=1, full=1, of_any_model=True)
def memory_law(settings: Settings) -> list[Measurement]:
    """Bytes of real buffers against 2 · L · T · C · bytes · B, in use and reserved.

    C is the width of all heads that are cached. On a GPU also what the allocator says it handed
    out, which is rounded up to whole blocks.
    """
    found = []
    configs = {name: preset(name) for name in ("reference", "gpt2")}
    if not settings.of_reference:
        subject = subject_of(settings)
        configs = {subject.title: subject.config}
    for (name, config), dtype, batch_size in product(configs.items(), DTYPES, BATCH_SIZES):
        for counted, tokens, nbytes in _filled(config, batch_size, dtype, settings.device):
            law = kv_cache_bytes(config, tokens, batch_size, DTYPES[dtype][1])
            labels = {"model": name, "batch_size": batch_size, "tokens": tokens, "counted": counted}
            if counted == ALLOCATED:
                record = _recorder("cache.memory-law", "allocator")
                found.append(record("allocated_over_law", "ratio", nbytes / law, dtype, **labels))
                continue
            record = _recorder("cache.memory-law", "counted")
            found.append(record("bytes_over_law", "ratio", nbytes / law, dtype, **labels))
            found.append(record("bytes", "bytes", nbytes, dtype, **labels))
    return found


def _filled(
    config: ModelConfig, batch_size: int, dtype: str, device: str
) -> Iterator[tuple[str, int, int]]:
    """What was counted, for how many tokens, and its bytes, while a cache is being filled."""
    kind = DTYPES[dtype][0]
    held = torch.cuda.memory_allocated() if device == "cuda" else 0
    peak = allocator_peak(lambda: KVCache(config, batch_size, CAPACITY, kind, device), device)
    if isinstance(peak, Reading):  # elsewhere PyTorch keeps no such account
        yield ALLOCATED, CAPACITY, int(peak.value) - held
    cache = KVCache(config, batch_size, CAPACITY, kind, device)
    yield "reserved", CAPACITY, cache.nbytes
    for length in (1, 2, 64, 200, CAPACITY):
        shape = (batch_size, config.n_kv_head, length - cache.length, config.d_head)
        rows = torch.zeros(shape, dtype=kind, device=device)
        for layer in range(config.n_layer):
            cache.update(layer, rows, rows)
        yield "in use", length, cache.nbytes_used


@experiment("cache.memory-example", smoke=0.1, quick=0.1, full=0.1)
def memory_example(settings: Settings) -> list[Measurement]:
    """Decimal gigabytes of one sequence: by the closed form, and of a cache without its memory."""
    config = ModelConfig(n_layer=32, n_head=32, n_embd=4096, context_length=32_000)
    found = []
    for option, dtype in (("fp16", "float16"), ("fp32", "float32")):
        kind, width = DTYPES[dtype]
        cache = KVCache(config, 1, config.context_length, kind, "meta")
        for counted, nbytes in (
            ("closed form", kv_cache_bytes(config, config.context_length, 1, width)),
            ("buffers", cache.nbytes),
        ):
            source = "counted" if counted == "buffers" else counted
            record = _recorder("cache.memory-example", source)
            found.append(record("gigabytes", "GB", nbytes / 1e9, option, counted=counted))
    return found


def _recorder(claim: str, source: str) -> Callable[..., Measurement]:
    def record(
        metric: str,
        unit: str,
        value: float | Estimate,
        option: str,
        direction: Direction = "lower",
        **parameters: Parameter,
    ) -> Measurement:
        return measured(
            value,
            claim=claim,
            metric=metric,
            unit=unit,
            direction=direction,
            choice="cache",
            option=option,
            parameters=parameters,
            source=source,
        )

    return record
