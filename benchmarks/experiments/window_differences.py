"""What rounding costs in each window of the test plays: kept, so that intervals can be tried on it.

    python -m benchmarks.experiments.window_differences reports/published/window_differences.json

reads all windows of all test plays (ten minutes of a core); `interval_coverage.py` draws from
the file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.instruments.cache_quality import qualities
from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.texts import play_windows
from benchmarks.instruments.windows import Windows
from benchmarks.subjects.built import Model
from reference_model.cache import KVCache
from reference_model.checkpoints import load_reference
from reference_model.command_line import Parser, exit_status
from reference_model.files import check_writable, write_whole
from reference_model.quantization.grid import Grid
from reference_model.quantization.kv_cache import QuantizedKVCache
from reference_model.quantization.norms import NormScheme, with_int8_norms
from reference_model.quantization.rounding import with_rounded_linears
from reference_model.quantization.turboquant import TurboQuant

Array = NDArray[np.float64]

BITS, SEEDS = 3, 5
CACHE = f"{BITS}-bit keys and values"
DIGITS = 7  # after the point: the differences are of 1e-4 nats and more


def differences(model: Model, windows: Windows) -> Iterator[tuple[str, Array]]:
    """Name → nats a token by which each window gets worse, (seeds, windows)."""
    baseline = token_losses(model, windows)
    changed = {
        "INT8 weights per tensor": with_rounded_linears(model, Grid(granularity="per tensor"))[0],
        "INT8 weights per channel": with_rounded_linears(model, Grid())[0],
        "INT8 gamma and beta per tensor": with_int8_norms(model, NormScheme(weights="int8"))[0],
    }
    for name, each in changed.items():
        yield name, (token_losses(each, windows) - baseline).mean(axis=1)[None]
    caches = {str(seed): partial(_empty_cache, model, seed) for seed in range(SEEDS)}
    plain, found = qualities(model, windows, caches)
    yield CACHE, np.stack([(each.losses - plain).mean(axis=1) for each in found.values()])


def _empty_cache(model: Model, seed: int, batch_size: int) -> KVCache:
    codec = TurboQuant(model.config.d_head, BITS, seed=seed)
    return QuantizedKVCache(model, batch_size, model.config.context_length, codec)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file that is named; the exit status."""
    return exit_status(lambda: _write_differences(_parser().parse_args(arguments).out))


def _write_differences(out: Path) -> int:
    """A list of one row of differences for each seed, by name."""
    check_writable(out)
    model = load_reference()
    windows = play_windows("test", model.config.context_length)
    found = {name: rows.round(DIGITS).tolist() for name, rows in differences(model, windows)}
    kept = {
        "population": windows.population,
        "tokens of a window": windows.inputs.shape[1],
        "stretches": windows.stretches.tolist(),
        "nats/token": found,
    }
    text = "{\n" + ",\n".join(f'"{k}": {json.dumps(v)}' for k, v in kept.items()) + "\n}\n"
    write_whole(out.parent, {out.name: text.encode()})
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.experiments.window_differences",
        description="Measure what rounding costs in each window of the test plays.",
        example="reports/published/window_differences.json",
    )
    parser.add_argument("out", type=Path, help="JSON file for the differences")
    return parser


if __name__ == "__main__":
    sys.exit(main())
