"""A token's step over a compressed cache beside one over an uncompressed cache, by the clock.

    python -m benchmarks.peers.compressed_speed --device cuda --out speed.json

One observation is a fresh process, in which all caches take turns at each length; its ratio is that
of their medians, and the interval is over the observations. Where the codes are read by kernels of
our own, the same cache has a second turn, by PyTorch's operators.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.instruments.clock import fresh_process_samples, interleaved_durations
from benchmarks.instruments.environment import run_stamp, usable_cores
from reference_model.command_line import Parser, exit_status
from reference_model.config import PRESETS
from reference_model.errors import UserError
from reference_model.files import check_writable, write_whole
from reference_model.printing import say, warn

if TYPE_CHECKING:
    from benchmarks.subjects.built import Model
    from reference_model.cache import KVCache

SAMPLE = "benchmarks.peers.compressed_speed:sample"
TOKENS = (1024, 4096, 16_384)
DTYPES = ("float32", "bfloat16")  # of the weights, and of the uncompressed cache
BITS = (2, 3, 4)
UNCOMPRESSED, PLAINLY = "uncompressed", ", PyTorch's operators"
Seconds = dict[str, dict[str, dict[str, float]]]  # dtype → tokens → cache → median of a step


def sample(model: str, device: str, tokens: Sequence[int], rounds: int, batch: int) -> Seconds:
    """What one process measures."""
    import torch

    from benchmarks.subjects.built import Model
    from reference_model.config import preset

    config = preset(model, context_length=max(tokens) + 1)
    found: Seconds = {}
    with torch.inference_mode():
        for dtype in DTYPES:
            built = Model(config).to(device, getattr(torch, dtype)).eval()
            found[dtype] = {
                str(past): _medians(interleaved_durations(_steps(built, past, batch), rounds, 2))
                for past in tokens
            }
    return found


def _medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def _steps(model: Model, past: int, batch: int) -> dict[str, Callable[[], None]]:
    """By cache: the step after so many tokens."""
    import torch

    from benchmarks.experiments.cache.compressed_samples import cache_of
    from benchmarks.instruments.filling import fill
    from reference_model.kernels import triton_attention

    weight = model.wte.weight
    plain = cache_of(model, 8 * weight.dtype.itemsize, past + 1, batch)
    caches = {UNCOMPRESSED: plain} | {
        f"{bits} bits": cache_of(model, bits, past + 1, batch) for bits in BITS
    }
    token = torch.zeros(batch, 1, dtype=torch.int64, device=weight.device)
    steps: dict[str, Callable[[], None]] = {}
    for name, cache in caches.items():
        fill(cache, model, past)
        steps[name] = partial(_step, model, token, cache, past)
        like_a_query = weight.new_empty(1, model.config.d_head)
        if cache is not plain and triton_attention.supports(like_a_query):
            steps[name + PLAINLY] = partial(_plainly, steps[name])
    return steps


def _step(model: Model, token: Any, cache: KVCache, past: int) -> None:
    cache.forget(past)  # each call is the first after the same past
    model(token, cache, last_only=True)


def _plainly(step: Callable[[], None]) -> None:
    """Without kernels of our own."""
    from reference_model.kernels import triton_attention

    with mock.patch.object(triton_attention, "supports", return_value=False):
        step()


# ---- what is told


def table(seen: Sequence[Seconds]) -> str:
    """Of each length and cache: milliseconds, and how many times as fast as uncompressed."""
    from tabulate import tabulate

    from benchmarks.judging.rounding import number

    rows = [
        [
            dtype,
            tokens,
            name,
            number(1e3 * statistics.median(one[dtype][tokens][name] for one in seen)),
            _ratio([one[dtype][tokens][UNCOMPRESSED] / one[dtype][tokens][name] for one in seen]),
        ]
        for dtype, lengths in seen[0].items()
        for tokens, caches in lengths.items()
        for name in caches
    ]
    titles = ("weights", "tokens", "cache", "ms a step (median)", "× as fast (95 %)")
    return tabulate(rows, headers=titles, disable_numparse=True)


def _ratio(ratios: Sequence[float]) -> str:
    from benchmarks.judging.rounding import figures, number
    from benchmarks.judging.stats import geometric_mean_ratio_interval

    if len(set(ratios)) == 1:  # the uncompressed cache itself, or a single observation
        return number(ratios[0])
    found = geometric_mean_ratio_interval(ratios)
    told = figures(found.value, found.interval)
    return f"{told.value} ({told.interval})"


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.peers.compressed_speed",
        description="Time a step over compressed caches beside one over an uncompressed cache.",
        example="--model toy --tokens 64 --observations 2 --rounds 2",
    )
    add = parser.add_argument
    add("--model", choices=PRESETS, default="gpt2", help="with random weights (default: gpt2)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    add("--tokens", nargs="+", type=int, default=list(TOKENS), help="that came before the step")
    add("--batch", type=int, default=1, help="sequences at once (default: 1)")
    add("--observations", type=int, default=5, help="fresh processes (default: 5)")
    add("--rounds", type=int, default=12, help="turns of each cache in a process (default: 12)")
    add("--out", type=Path, help="JSON file for all medians")
    return parser


def main(arguments: Sequence[str]) -> int:
    import torch

    from benchmarks.experiments.experiment import Settings

    given = _parser().parse_args(arguments)
    numbers = (*given.tokens, given.batch, given.observations, given.rounds)
    if min(numbers) < 1:
        raise UserError(f"{min(numbers)} of something is nothing to measure; give 1 or more")
    if given.device == "cuda" and not torch.cuda.is_available():
        raise UserError("PyTorch finds no GPU here; use --device cpu")
    if given.out is not None:
        check_writable(given.out)
    stamp = run_stamp(Settings("full", given.device, 0))
    asked = {
        name: getattr(given, name) for name in ("model", "device", "tokens", "rounds", "batch")
    }
    seen: list[Seconds] = []
    for number in range(1, given.observations + 1):
        warn(f"observation {number} of {given.observations}")
        seen += fresh_process_samples(SAMPLE, asked, 1, usable_cores())
        if given.out is not None:  # after each: minutes of measuring outlive an interruption
            kept = {"environment": stamp, "asked": asked, "observations": seen}
            text = f"{json.dumps(kept, indent=1, allow_nan=False)}\n"
            write_whole(given.out.parent, {given.out.name: text.encode()})
    say(table(seen))
    return 0


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
