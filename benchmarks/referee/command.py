"""python -m benchmarks referee: every format of keys and values on a model, and one table."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.judging.claims import Claim
from reference_model.errors import UserError
from reference_model.printing import say

if TYPE_CHECKING:
    from benchmarks.experiments.experiment import Experiment, Settings
    from benchmarks.referee.rows import Row

CLAIM = "turboquant.best-at-three"
OUT = Path("referee.json")
LARGEST = 8  # bits of a code
OPTIONS = ("sinks", "window", "layers")
Measure = Callable[[list[Claim], argparse.Namespace, "Sequence[Experiment]"], int]


def add_to(
    commands: Any,
    add_subject: Callable[[argparse.ArgumentParser], None],
    count: Callable[[str], int],
    statuses: Mapping[int, str],
) -> None:
    """Add the command to a parser's ``commands``; ``add_subject`` adds --model and such."""
    from reference_model.command_line import about  # an old commit's model has none

    parser = commands.add_parser(
        "referee",
        **about("measure every format of the KV cache on a model, and print one table"),
        example="--bits 3 --out referee.json",
        statuses=statuses,
    )
    add_subject(parser)
    parser.add_argument(
        "--bits", type=_bits, metavar="N,N", help="bits of a code, such as 3,4 (default: all)"
    )
    for name, told in (
        ("sinks", "give every format N first tokens exactly"),
        ("window", "give every format the N newest tokens exactly"),
        ("layers", "give every format INT8 in the N first and the N last layers"),
    ):
        parser.add_argument(f"--{name}", type=_number, metavar="N", help=told)
    parser.add_argument(
        "--out",
        type=Path,
        default=OUT,
        metavar="RESULTS.JSON",
        help=f"file for the results (default: {OUT})",
    )
    parser.add_argument(
        "--jobs",
        type=count,
        metavar="N",
        help="run N cells at once; timed cells run alone (default: the number of cores)",
    )
    parser.set_defaults(
        profile="full",
        only=CLAIM,
        fresh=False,
        accept_code=False,
        shard=None,
        executor="processes",
        address=None,
    )


def run(options: argparse.Namespace, claims: list[Claim], measure: Measure) -> int:
    """Returns the exit status of ``measure``, which runs the experiments that it is given."""
    from benchmarks.experiments.catalogue import all_experiments
    from benchmarks.experiments.turboquant.best_at_three import best_at_three, cells_of
    from benchmarks.record.results import read_results
    from benchmarks.referee.table import table
    from benchmarks.running.runner import settings_of
    from benchmarks.subjects.subject import subject_of

    settings = settings_of(options)
    chosen = _chosen(options, settings)
    asked = replace(best_at_three, cells=lambda settings: cells_of(settings, chosen))
    listed = [asked if each.claim == CLAIM else each for each in all_experiments()]
    status = measure(claims, options, listed)
    if options.out.exists() and status in (0, 1):
        found = table(read_results(options.out)["measurements"])
        if found:
            say(f"\n{subject_of(settings).scale}\n\n{found}")
    return status


def _chosen(options: argparse.Namespace, settings: Settings) -> list[Row]:
    from benchmarks.referee.rows import rows, with_options
    from benchmarks.subjects.subject import subject_of

    subject = subject_of(settings)
    found = rows(subject.width, subject.window, options.bits)
    if any(getattr(options, name) for name in OPTIONS):
        found = with_options(found, *(getattr(options, name) for name in OPTIONS))
    if not found:
        asked = " or ".join(map(str, options.bits))
        raise UserError(f"no format has {asked} bits; use 2, 3, 4 or 8")
    return found


def _bits(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() and 1 <= int(part) <= LARGEST for part in parts):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no list of whole numbers from 1 to {LARGEST}, such as 3,4"
        )
    return tuple(map(int, parts))


def _number(text: str) -> int:
    if not text.isdecimal() or int(text) > 2**20:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)
