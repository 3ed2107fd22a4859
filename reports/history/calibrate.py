"""python -m reports.history.calibrate: how often noise alone gives a step, and real ones are found.

Series without a step, of the lengths and kinds of noise that a history has, choose the penalty.
Fresh ones then measure its rate of false steps, and series with one step in the middle its power.
Longer series, which some projects have, have more occasions for false ones: how many is measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from benchmarks.judging.stats import proportion_interval
from reference_model.command_line import Parser, exit_status, seed
from reference_model.errors import UserError
from reference_model.files import check_writable, write_whole
from reference_model.printing import say
from reports.history.steps import FALSE_STEPS, fits, noisy_steps, price_of_a_step

Values = NDArray[np.float64]

BAR = FALSE_STEPS  # of series without a step in which one is found
STEP = 0.5  # between penalties
LENGTHS = (5, 7, 10, 20, 35, 50)
LONG = (200, 600, 1772)  # the last, of django's public history
DEVIATIONS = (0.01, 0.02)  # standard, as a share of the level
SIZES = (0.03, 0.05, 0.10)


def correlated(random: Generator, n: int, correlation: float) -> Values:
    """AR(1) of variance 1 from its stationary start."""
    fresh = random.standard_normal(n)
    values = np.empty(n)
    values[0] = fresh[0]
    for i in range(1, n):
        values[i] = correlation * values[i - 1] + np.sqrt(1 - correlation**2) * fresh[i]
    return values


def spiky(random: Generator, n: int) -> Values:
    """Each tenth run is slowed down by a background load, by five deviations on average."""
    return random.standard_normal(n) + (random.random(n) < 0.1) * random.exponential(5.0, n)


NOISES: dict[str, Callable[[Generator, int], Values]] = {
    "white": lambda random, n: random.standard_normal(n),
    "AR(1), 0.3": lambda random, n: correlated(random, n, 0.3),
    "AR(1), 0.5": lambda random, n: correlated(random, n, 0.5),
    "Student's t, 3 degrees": lambda random, n: random.standard_t(3, n) / np.sqrt(3),
    "slowed down now and then": spiky,
}


def quiet_series(random: Generator, noise: str, length: int, n: int) -> Iterable[list[float]]:
    """``n`` series around 1 without a step; half of them with each standard deviation."""
    for i in range(n):
        deviation = DEVIATIONS[i % len(DEVIATIONS)]
        yield np.exp(deviation * NOISES[noise](random, length)).tolist()


def false_steps(series: Iterable[list[float]], penalty: float) -> int:
    """In how many of them there is one."""
    return sum(bool(noisy_steps(values, penalty)) for values in series)


def smallest_penalty(random: Generator, n: int) -> float:
    """At which at most 1 % have a step: of each kind of noise, and of each length."""
    if proportion_interval(0, n * min(len(NOISES), len(LENGTHS))).interval[1] > BAR:
        raise UserError(f"{n} series of each case cannot show a share of {BAR:.0%}; ask for 100")
    needed = np.array(
        [
            [
                [_without_step(values) for values in quiet_series(random, noise, length, n)]
                for length in LENGTHS
            ]
            for noise in NOISES
        ]
    )
    pooled = [*needed, *needed.swapaxes(0, 1)]

    def holds(penalty: float) -> bool:
        """As far as these draws tell: the whole 95 % interval of each share lies below."""
        return all(
            proportion_interval(int((part > penalty).sum()), part.size).interval[1] <= BAR
            for part in pooled
        )

    return next(penalty for penalty in itertools.count(STEP, STEP) if holds(penalty))


def _without_step(values: list[float]) -> float:
    """The penalty from which on ``values`` have no step."""
    price = price_of_a_step(len(values))
    return max(gain / (price * (len(starts) - 1)) for gain, starts in fits(values))


def false_step_rates(random: Generator, penalty: float, n: int) -> list[dict[str, Any]]:
    """Of each kind of noise and length: the share of ``n`` series in which there is a step."""
    return [
        {
            "noise": noise,
            "length": length,
            **_share(false_steps(quiet_series(random, noise, length, n), penalty), n),
        }
        for noise in NOISES
        for length in LENGTHS
    ]


def false_steps_of_long_series(random: Generator, penalty: float, n: int) -> list[dict[str, Any]]:
    """The same of lengths that are not chosen for, and how many steps there are in all.

    What is slow twice in a row is a step there and back.
    """
    rows = []
    for noise, length in itertools.product(NOISES, LONG):
        series = quiet_series(random, noise, length, n)
        found = [len(noisy_steps(values, penalty)) for values in series]
        case = {"noise": noise, "length": length, "steps": sum(found)}
        rows.append({**case, **_share(sum(map(bool, found)), n)})
    return rows


def power(random: Generator, penalty: float, n: int) -> list[dict[str, Any]]:
    """The share in which one step upwards in the middle is found, at its commit or beside it."""
    rows = []
    for noise in ("white", "AR(1), 0.5"):
        for deviation in DEVIATIONS:
            for length in (5, 10, 20, 50):
                for size in SIZES:
                    found = 0
                    for _ in range(n):
                        values = np.exp(deviation * NOISES[noise](random, length))
                        values[length // 2 :] *= 1 + size
                        steps = noisy_steps(values.tolist(), penalty)
                        found += any(
                            abs(step.at - length // 2) <= 1 and step.after > step.before
                            for step in steps
                        )
                    case = {"noise": noise, "deviation": deviation, "length": length, "step": size}
                    rows.append({**case, **_share(found, n)})
    return rows


def calibrate(n: int, start: int) -> dict[str, Any]:
    """``n`` series of each kind of noise and length, a fourth of long ones, a tenth for power."""
    choosing, judging, finding, lengthening = np.random.default_rng(start).spawn(4)
    penalty = smallest_penalty(choosing, n)
    rates = false_step_rates(judging, penalty, n)
    return {
        "penalty": penalty,
        "bar": BAR,
        "seed": start,
        "series": n,
        "false_steps_of_all": _share(sum(r["count"] for r in rates), sum(r["n"] for r in rates)),
        "false_steps_by_noise": {
            noise: _share(sum(r["count"] for r in rates if r["noise"] == noise), n * len(LENGTHS))
            for noise in NOISES
        },
        "false_steps_by_length": {
            length: _share(sum(r["count"] for r in rates if r["length"] == length), n * len(NOISES))
            for length in LENGTHS
        },
        "false_steps": rates,
        "false_steps_of_long_series": false_steps_of_long_series(
            lengthening, penalty, max(1, n // 4)
        ),
        "power": power(finding, penalty, max(1, n // 10)),
    }


def _share(count: int, n: int) -> dict[str, Any]:
    found = proportion_interval(count, n)
    low, high = found.interval
    return {
        "count": count,
        "n": n,
        "share": round(found.value, 5),
        "interval": [round(low, 5), round(high, 5)],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> None:
        given = _parser().parse_args(arguments)
        if given.out:
            check_writable(given.out)
        found = calibrate(given.series, given.seed)
        if given.out:
            content = json.dumps(found, indent=1, allow_nan=False).encode() + b"\n"
            write_whole(given.out.parent, {given.out.name: content})
        everything = found["false_steps_of_all"]
        low, high = everything["interval"]
        say(
            f"penalty {found['penalty']:g}: a false step in {100 * everything['share']:.2f} % "
            f"[{100 * low:.2f}, {100 * high:.2f}] of {everything['n']} series"
        )

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.history.calibrate",
        description="Measure how often steps are found in noise, and in series with one.",
        example="--series 200 --out steps.json",
    )
    told = "series of each case (default: 2000)"
    parser.add_argument("--series", type=_positive, default=2000, help=told)
    parser.add_argument("--seed", type=seed, default=0, help="of the noise (default: 0)")
    parser.add_argument("--out", type=Path, help="JSON file for the rates")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
