"""How often intervals over some windows hold the mean over all of them.

    python -m benchmarks.experiments.interval_coverage reports/published/window_differences.json

draws windows as the quick and the smoke profile do, 200 times over, from what
`window_differences.py` kept of every window, and makes an interval of each draw. It should hold
the mean over all windows in 95 % of them. And with that mean moved to the border of what a claim
asks for, the draws that would have decided the claim are counted: 2.5 % on either side.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.data.json_files import read_json
from benchmarks.experiments.experiment import Profile
from benchmarks.experiments.int8 import lesson as int8
from benchmarks.experiments.turboquant import kv_quality
from benchmarks.experiments.window_differences import CACHE
from benchmarks.instruments.windows import spread_indices
from benchmarks.judging.claims import Region
from benchmarks.judging.stats import Estimate, crossed_mean_interval
from reference_model.command_line import Parser, exit_status
from reference_model.printing import say

DRAWS = 200
PROFILES: tuple[Profile, ...] = ("smoke", "quick")


@dataclass(frozen=True)
class Coverage:
    """Of ``DRAWS`` draws of one profile's windows of one quantity."""

    quantity: str
    profile: Profile
    windows: int
    held: int  # draws whose interval holds the mean over all windows
    confirmed: int  # draws that lie within a region at whose border the mean was put
    refuted: int  # draws that lie outside of it


def coverages(kept: Mapping[str, Any], draws: int = DRAWS) -> Iterator[Coverage]:
    """Of every quantity that was kept, and every profile that reads some of the windows."""
    stretches = np.array(kept["stretches"])
    for quantity, rows in kept["nats/token"].items():
        for profile in PROFILES:
            windows = kv_quality.WINDOWS if quantity == CACHE else int8.WINDOWS
            seeds = 1 if profile == "smoke" else len(rows)
            table = np.array(rows[:seeds])  # (seeds, windows)
            found = [_drawn(table, stretches, windows[profile], seed) for seed in range(draws)]
            mean = table.mean()
            region = Region("at_most", (mean,))
            sides = [region.side(*each.interval) for each in found]
            held = sum(side == "across" for side in sides)
            yield Coverage(
                quantity,
                profile,
                windows[profile] or table.shape[1],
                held,
                sides.count("within"),
                sides.count("without"),
            )


def _drawn(
    table: NDArray[np.float64], stretches: NDArray[np.int64], count: int | None, seed: int
) -> Estimate:
    if count is None:
        return crossed_mean_interval(table, stretches)
    chosen = spread_indices(table.shape[1], count, seed)
    return crossed_mean_interval(table[:, chosen], stretches[chosen])


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; the exit status."""
    return exit_status(lambda: _print_coverages(_parser().parse_args(arguments).differences))


def _print_coverages(differences: Path) -> int:
    from tabulate import tabulate

    rows = [tuple(vars(each).values()) for each in coverages(read_json(differences))]
    say(tabulate(rows, [*Coverage.__dataclass_fields__]))
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks.experiments.interval_coverage",
        description="Measure how often intervals over some windows hold the mean over all.",
        example="reports/published/window_differences.json",
    )
    told = "file of benchmarks.experiments.window_differences"
    parser.add_argument("differences", type=Path, help=told)
    return parser


if __name__ == "__main__":
    sys.exit(main())
