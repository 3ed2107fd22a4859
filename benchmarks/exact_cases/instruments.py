"""The suite's instruments on what has a known answer: counts, bytes, clocks, losses, a device."""

from __future__ import annotations

import mmap
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from benchmarks.exact_cases.caches import WIDTH, codec_of
from benchmarks.exact_cases.case import Case, refusal
from benchmarks.exact_cases.models import normal, small_model, tokens_of

SHORT, LONG = 0.02, 0.06  # seconds of sleep


def _counts() -> object:
    """FLOPs, operators and bytes of single operators, by kind."""
    import torch
    import torch.nn.functional as F

    from benchmarks.instruments.counting import count

    x, w, b = normal("x", 5, 7), normal("w", 11, 7), normal("b", 11)
    q = normal("q", 2, 3, 4, 6)
    image, kernel = normal("image", 1, 2, 8, 8), normal("kernel", 4, 2, 3, 3)
    ids, table = torch.tensor([[1, 2], [3, 3]]), normal("table", 9, 6)
    codes = (normal("codes", 24, 32) * 40).clamp(-127, 127).to(torch.int8)
    calls: tuple[Any, ...] = (
        lambda: F.linear(x, w, b),
        lambda: F.linear(x, w),
        lambda: x @ w.T,
        lambda: torch.addmm(b, x, w.T),
        lambda: torch.bmm(q[0], q[0].mT),
        lambda: torch.baddbmm(q[0] @ q[0].mT, q[0], q[0].mT),
        lambda: torch.einsum("ij,kj->ik", x, w),
        lambda: torch.matmul(q, q.mT),
        lambda: x[0] @ w[0],
        lambda: x @ w[0],
        lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True),
        lambda: F.conv2d(image, kernel),
        lambda: F.embedding(ids, table),
        lambda: table[ids],
        lambda: x + x,
        lambda: x.clone(),
        lambda: x.view(7, 5),
        lambda: x.T.contiguous(),
        lambda: x.add_(0),
        lambda: torch.cat((x, x)),
        lambda: torch.empty(9),
        lambda: torch.zeros(9),
        lambda: x[:1].expand(4, 7) * 2,
        lambda: torch._int_mm(codes, codes.T.contiguous()),
        lambda: x.to(torch.float16),
        lambda: x.sum(),
        lambda: F.layer_norm(x, (7,)),
        lambda: x.softmax(-1),
        lambda: table.index_select(0, ids[0]),
        lambda: x.copy_(x + 1),
        lambda: torch.outer(x[0], w[0]),
    )
    found: list[object] = []
    for inference in (False, True):
        with torch.inference_mode(inference):
            for call in calls:
                counted = count(call)
                found += [counted.flops, counted.operators, counted.bytes_in, counted.bytes_out]
    backward = normal("v", 3, 7).requires_grad_()
    counted = count(lambda: F.linear(backward, w).sum().backward())
    return [*found, counted.flops, counted.flops_by_operator]


def _counts_of_models() -> object:
    """What is counted of a model is what the formulas say."""
    import torch

    from benchmarks.instruments.counting import count, counted_parameters, kernel_launches
    from reference_model.costs import forward_flops, parameter_count

    found: list[object] = []
    for choices in ({}, {"head": "untied", "position": "rope"}, {"norm_placement": "double"}):
        model = small_model(**choices)
        tokens = tokens_of(model, 1, 9)
        with torch.inference_mode():
            counted = count(lambda model=model, tokens=tokens: model(tokens))  # type: ignore[misc]
        formula = forward_flops(model.config, 9)
        found += [counted.flops == formula.total, counted.attention_flops == formula.attention]
        found.append(counted.attention_flops)  # which operators they are is the model's affair
        found += [counted_parameters(model.config) == parameter_count(model.config)]
    launches = kernel_launches(lambda: None)
    return [*found, type(launches).__name__ if not torch.cuda.is_available() else ""]


def _bytes() -> object:
    """Of tensors, tied weights, views, caches, and of what is no tensor."""
    import torch

    from benchmarks.instruments import memory
    from reference_model.cache import KVCache, StaticKVCache
    from reference_model.quantization.int8 import weight_bytes, with_int8_linears
    from reference_model.quantization.kv_cache import QuantizedKVCache

    module = torch.nn.Module()
    whole = torch.zeros(1000)
    module.register_buffer("view", whole[:10])
    module.register_buffer("other view", whole[10:20])  # of the same bytes
    module.register_buffer("small", torch.zeros(7, dtype=torch.float16))
    module.register_buffer("unsaved", torch.zeros(99), persistent=False)
    tied, untied = small_model(), small_model(head="untied")
    wide = small_model(n_embd=3 * WIDTH)
    caches: list[Any] = [KVCache(tied.config, 2, 9), StaticKVCache(tied.config, 2, 9)]
    caches.append(QuantizedKVCache(wide, 2, 9, codec_of("turboquant 3"), window=2))
    found: list[object] = [memory.weight_bytes_held(each) for each in (module, tied, untied)]
    for cache in caches:
        model = wide if isinstance(cache, QuantizedKVCache) else tied
        with torch.inference_mode():
            model(tokens_of(model, 2, 5), cache)
        found.append(memory.cache_bytes_held(cache))
    found.append([weight_bytes(with_int8_linears(wide, p).model) for p in ("dequantize", "int_mm")])
    found.append(type(memory.allocator_peak(lambda: None, "cpu")).__name__)
    return [*found, refusal(lambda: memory.weight_bytes_held(torch.nn.Linear(2, 2, device="meta")))]


def _held_by_a_process() -> object:
    """Whether a fresh process is seen to hold what it made: 64 MB, within a tenth."""
    from benchmarks.instruments import memory

    # Its import takes twice as much for a moment, which is not the call's.
    here, size = "benchmarks.exact_cases.large_import:ones", 64 * 2**20
    found = memory.peak_rss(here, {"nbytes": size}, threads=1)
    increase: Any = found["increase"]
    value = getattr(increase, "value", None)
    return [sorted(found), None if value is None else 0.95 < value / size < 1.2]


def _clock() -> object:
    """A sleep of known length, turns and their order, and a process of its own."""
    from benchmarks.instruments import clock

    order: list[str] = []

    def sleep(name: str, seconds: float) -> None:
        order.append(name)
        time.sleep(seconds)

    arms = {"short": partial(sleep, "short", SHORT), "long": partial(sleep, "long", LONG)}
    seconds = clock.interleaved_durations(arms, rounds=3, warmup=1)
    least = {name: min(samples) for name, samples in seconds.items()}
    alone = clock.durations(lambda: time.sleep(SHORT), repeats=2, warmup=0)
    timing = clock.GenerationTiming(2.0, [0.5, 0.25, 1.0, 0.25], batch_size=3)
    return [
        order,
        {name: len(samples) for name, samples in seconds.items()},
        len(alone),
        # What a busy machine adds is no fault: a sleep is never shorter, nor three times as long.
        SHORT <= least["short"] < 3 * SHORT,
        LONG <= least["long"] < 3 * LONG,
        min(alone) >= SHORT,
        timing.seconds_per_token,
        timing.total,
        timing.tokens_per_second,
        refusal(lambda: clock.GenerationTiming(1.0, []).seconds_per_token),
        refusal(lambda: clock.interleaved_durations({}, 3)),
        refusal(lambda: clock.durations(lambda: None, 0)),
        refusal(lambda: clock.fresh_process_samples("m:f", {}, 0, 1)),
        refusal(lambda: clock.fresh_process_samples("m:f", {}, 1, 0)),
        clock.generation_timing(model := small_model(), tokens_of(model, 2, 3), 4).batch_size,
    ]


def _processes() -> object:
    """As many as were asked for, each with its own answer; what they are told; one that fails."""
    import subprocess

    from benchmarks.instruments import clock

    told: list[object] = []

    def run(command: list[str], input: str, env: dict[str, str], **options: object) -> Any:
        told.append([command[-2:], input, [env[f"{each}_NUM_THREADS"] for each in ("OMP", "MKL")]])
        failed = len(told) > 3
        return SimpleNamespace(
            returncode=int(failed), stdout=f'{{"which": {len(told)}}}', stderr="lost\n" * failed
        )

    with mock.patch.object(subprocess, "run", run):
        found = clock.fresh_process_samples("m:f", {"a": 1}, processes=3, threads=2)
        return [found, refusal(lambda: clock.fresh_process_samples("m:f", {}, 1, 1)), told]


def _limits() -> object:
    """Bounds of steps on a machine of round numbers, and limits from round seconds."""
    from benchmarks.instruments import limits
    from reference_model.config import preset

    machine = limits.MachineLimit(1e9, {"float32": 5e10, "int8": 2e11}, {"float16": "refused"}, 1)
    found: list[object] = [machine.balance("float32"), machine.roof(10, "float32")]
    found += [machine.roof(1000, "float32"), refusal(lambda: machine.arithmetic("float16"))]
    for name in ("toy", "gpt2"):
        for bound in (
            limits.decode_bound(preset(name), 100, machine),
            limits.decode_bound(preset(name, head="untied"), 7, machine, "int8", 4),
            limits.prefill_bound(preset(name), 100, machine),
            limits.prefill_bound(preset(name), 9, machine, "int8", 3),
        ):
            found += [bound, bound.seconds, bound.intensity, bound.share(2.0)]
    probes = [
        limits.Probe("read", lambda: None, 1000, 250),
        limits.Probe("float32", lambda: None, 8, 400),
    ]
    seconds = {limits.READ: [1.0, 2.0, 9.0], "float32": [4.0, 2.0, 1.0]}
    read = limits.read_probe("cpu", 4001)
    found += [
        read.nbytes,
        read.flops,
        float(read.function()),  # type: ignore[arg-type]  # a sum, of all that it reads
        limits.bytes_per_value("int8"),
        limits.bytes_per_value("bfloat16"),
    ]
    probes[0] = limits.Probe(limits.READ, lambda: None, 1000, 250)
    return [
        *found,
        limits.limit_from(probes, seconds),
        refusal(lambda: limits.limit_from(probes[1:], seconds)),
    ]


def _what_a_probe_reads() -> object:
    """Whether the system has given memory to what the probe of the bandwidth reads: 64 MB of it."""
    from benchmarks.instruments import limits

    statm = Path("/proc/self/statm")
    if not statm.exists():
        return None

    def resident() -> int:
        return int(statm.read_text().split()[1]) * mmap.PAGESIZE

    size, before = 64 * 2**20, resident()
    probe = limits.read_probe("cpu", size)  # larger than what an allocator keeps for later
    return [probe.nbytes, resident() - before > 0.9 * size]


def _losses() -> object:
    """Losses of a model, of a cache beside it, and errors of its attention."""
    import torch

    from benchmarks.instruments import cache_quality, perplexity
    from benchmarks.instruments.windows import windows_of
    from reference_model.quantization.kv_cache import QuantizedKVCache

    model = small_model(n_embd=3 * WIDTH, dropout=0.2)  # which training alone applies
    windows = windows_of(tokens_of(model, 1, 100)[0], 16)
    codec = codec_of("turboquant 3")
    caches = {
        name: partial(_compressed, QuantizedKVCache, model, codec, window)
        for name, window in (("3 bits", 0), ("window", 4))
    }
    plain, found = cache_quality.qualities(model, windows, caches, batch_size=4)
    model.train()
    losses = perplexity.token_losses(model, windows, batch_size=4)
    half = perplexity.token_losses(small_model("bfloat16", n_embd=3 * WIDTH), windows, 8)
    return [
        losses,
        model.training,
        half.mean(),
        abs(plain - losses).max() < 1e-5,
        found,
        cache_quality.attention_errors(model.eval(), windows, caches, batch_size=4),
        perplexity.bits_per_byte(1000.0, 300),
        perplexity.NATS_PER_BIT,
        refusal(lambda: perplexity.token_losses(_broken(torch), windows)),
    ]


def _compressed(kind: Any, model: Any, codec: Any, window: int, batch_size: int) -> Any:
    return kind(model, batch_size, 16, codec, window=window)


def _broken(torch: Any) -> Any:
    model = small_model(n_embd=3 * WIDTH)
    torch.nn.init.constant_(model.ln_f.weight, float("nan"))
    return model


def _fine_tunes() -> object:
    """What an optimiser keeps, and steps at a constant rate."""
    from benchmarks.instruments import finetuning
    from reference_model import lora

    model: Any = small_model()
    lora.add_adapters(model, lora.LoRAConfig(3, init_b="gaussian"), _generator())
    found: list[object] = []
    names: tuple[finetuning.Optimizer, ...] = ("sgd", "adamw")
    for name in names:
        recipe = finetuning.at_constant_rate(1e-2, steps=3)
        training = finetuning.adapter_training(
            model, lambda step: tokens_of(model, 2, 8), recipe, name
        )
        found += [
            list(training.losses()),
            finetuning.state_bytes(training),
            list(lora.adapter_parameters(model)),
        ]
    outcome = finetuning.Outcome([1.0, 2.0], [], 1, 2, 3)
    return [*found, outcome.validation_loss, finetuning.Outcome([], [], 1, 2, 3).validation_loss]


def _generator() -> Any:
    import torch

    return torch.Generator().manual_seed(0)


CASES = (
    Case(
        "counts of operators",
        "31 operators, with gradients and without",
        "float32, int8",
        "work that is not counted, or twice",
        _counts,
    ),
    Case(
        "counts of models",
        "T 9, 3 choices",
        "float32",
        "counts that part from the formulas",
        _counts_of_models,
    ),
    Case(
        "bytes held",
        "tied and untied, views, 3 caches",
        "float32",
        "bytes that count twice or not",
        _bytes,
    ),
    Case("memory of a process", "64 MB", "float32", "a peak that is missed", _held_by_a_process),
    Case(
        "clock",
        "sleeps of 20 and 60 ms",
        "none",
        "a warm-up that counts, or an order that is fixed",
        _clock,
    ),
    Case(
        "processes",
        "3 that answer, 1 that fails",
        "none",
        "one answer that stands for all",
        _processes,
    ),
    Case(
        "limits",
        "a machine of 1 GB/s and 50 GFLOP/s",
        "none",
        "a bound that forgets a part",
        _limits,
    ),
    Case("what a probe reads", "64 MB", "float32", "memory that is not there", _what_a_probe_reads),
)
# Codes may step over an edge, and steps grow, where a model's sums are in another order.
ROUNDED = (
    Case("losses and errors", "6 windows of 16", "float32", "a loss of other tokens", _losses),
    Case("fine-tunes", "3 steps, rank 3", "float32", "bytes or steps that are lost", _fine_tunes),
)
