"""What the training loop costs beside a plain one, and how a machine trains most cells an hour.

    python -m benchmarks.training.loop_speed --out speed.json

One observation is a fresh process in which both loops take turns on the model of the trained
comparisons. Then one job of two threads is timed, and two jobs of one thread beside each other.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.instruments.clock import fresh_process_samples, interleaved_durations
from reference_model.command_line import Parser, exit_status
from reference_model.files import check_writable, write_whole
from reference_model.printing import say

if TYPE_CHECKING:
    from benchmarks.judging.stats import Estimate

PROCESSES, JOB_PROCESSES = 10, 6
TURNS, STEPS = 40, 2  # turns of each loop, and steps of a turn: noise comes and goes in seconds
TARGET = "benchmarks.training.loop_speed:observed"


def observed() -> dict[str, float]:
    """Seconds of a step by each loop in this process, its FLOPs, and the machine's limit."""
    import torch

    from benchmarks.instruments.counting import count
    from benchmarks.instruments.limits import machine_limit
    from benchmarks.instruments.texts import shuffled_windows
    from benchmarks.instruments.trained_models import BATCH_SIZE, CONFIG, STEP_TOKENS, recipe_of
    from benchmarks.subjects.built import Model
    from benchmarks.training import plain_loop
    from reference_model.training import Training

    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(CONFIG.vocab_size, (200_000,), generator=generator)
    batches = shuffled_windows(tokens, CONFIG.context_length, BATCH_SIZE, seed=0)
    recipe = recipe_of(STEPS * (TURNS + 1), rate=4e-3, seed=0)
    loops = {
        "loop": Training(Model(CONFIG), batches, recipe).losses(),
        "plain": plain_loop.losses(Model(CONFIG), batches, recipe),
    }

    def turn(losses: Iterator[float]) -> None:
        for _ in range(STEPS):
            next(losses)

    arms = {name: partial(turn, losses) for name, losses in loops.items()}
    seconds = interleaved_durations(arms, TURNS)
    one_step = Training(Model(CONFIG), batches, recipe).losses()
    return {
        **{name: statistics.median(each) / STEPS for name, each in seconds.items()},
        "tokens": STEP_TOKENS,
        "flops": count(lambda: next(one_step)).flops,
        "limit": machine_limit(rounds=3).arithmetic("float32"),
    }


def beside_each_other(jobs: int, threads: int) -> list[float]:
    """Tokens a second that so many jobs train together, an observation each."""
    found = []
    for _ in range(JOB_PROCESSES):
        with ThreadPoolExecutor(jobs) as pool:
            started = [
                pool.submit(fresh_process_samples, TARGET, {}, 1, threads) for _ in range(jobs)
            ]
            samples = [each.result()[0] for each in started]
        found.append(sum(sample["tokens"] / sample["loop"] for sample in samples))
    return found


def run(out: Path) -> None:
    """Measure, say and write it."""
    from benchmarks.experiments.experiment import Settings
    from benchmarks.instruments.environment import run_stamp
    from benchmarks.judging.stats import geometric_mean_ratio_interval, mean_interval

    check_writable(out)
    samples = fresh_process_samples(TARGET, {}, PROCESSES, threads=1)
    found: dict[str, Estimate] = {
        "speed beside a plain loop": geometric_mean_ratio_interval(
            [sample["plain"] / sample["loop"] for sample in samples]
        ),
        "tokens a second": mean_interval([s["tokens"] / s["loop"] for s in samples]),
        "share of the matrix limit": mean_interval(
            [s["flops"] / s["loop"] / s["limit"] for s in samples]
        ),
        "tokens a second, one job of two threads": mean_interval(beside_each_other(1, 2)),
        "tokens a second, two jobs of one thread": mean_interval(beside_each_other(2, 1)),
    }
    told: dict[str, Any] = {
        "command": "python -m benchmarks.training.loop_speed",
        "environment": run_stamp(Settings("full", "cpu", 0)),
        "found": {
            name: {"value": each.value, "interval": each.interval, "n": each.n}
            for name, each in found.items()
        },
    }
    write_whole(out.parent, {out.name: (json.dumps(told, indent=1) + "\n").encode()})
    for name, each in found.items():
        low, high = each.interval
        say(f"{name}: {each.value:.4g} ({low:.4g} to {high:.4g}, n = {each.n})")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.training.loop_speed",
        description="Time the training loop beside a plain one.",
        example="--out speed.json",
    )
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    return parser


def main() -> int:
    """Returns the exit status."""
    return exit_status(lambda: run(_parser().parse_args().out))


if __name__ == "__main__":
    sys.exit(main())
