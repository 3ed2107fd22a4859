"""python -m tests.fuzz: thousands of inputs that nobody would write, and what became of each.

Wanted of all: no traceback, no more than 20 s and 2 GB, no output damaged, and no answer that is
wrong without a word. Exit status: 0 so it was, 1 not. `--only KIND --seed S` repeats one case.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate

from reference_model.command_line import STATUSES, Parser, exit_status
from tests.fuzz.forked import Verdict, run_cases, warm_up

FAULTS = ("traceback", "crash", "slow", "memory", "damaged", "wrong")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    given = _parser().parse_args(arguments)
    # A child of a process with a pool of threads would wait for threads that it has not.
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as scratch:
        for kind in _kinds():
            if given.only and given.only not in kind.name:
                continue
            started = time.monotonic()
            place = Path(scratch) / kind.name.replace(" ", "-")
            place.mkdir()
            case = kind(place)
            warm_up(case, place / "warm")
            seeds = [given.seed] if given.seed else _seeds(kind.name, given.cases or kind.cases)
            verdicts = []
            for verdict in run_cases(case, seeds, place / "cases", given.at_once):
                verdicts.append(verdict)
                for fault, seen in verdict.faults:
                    failed = True
                    print(f"{fault}: {verdict.what}: {seen}\n  --only {kind.name!r} --seed "
                          f"{verdict.seed!r}", file=sys.stderr, flush=True)  # fmt: skip
            rows.append(_row(kind.name, verdicts, time.monotonic() - started))
    print(tabulate(rows, headers="keys", tablefmt="github"))
    return int(failed)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m tests.fuzz",
        description="Read thousands of damaged and hostile inputs, and name each fault.",
        example="--only results --cases 20",
        statuses=STATUSES | {1: "a fault was found, and is told with the command that repeats it"},
    )
    parser.add_argument("--only", metavar="KIND", help="one kind of input, by a part of its name")
    parser.add_argument("--cases", type=int, metavar="N", help="N cases of each kind")
    parser.add_argument("--seed", help="one case, by the seed that was told of a fault")
    told = "how many processes (default: as many as cores)"
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, metavar="N", help=told)
    return parser


def _kinds() -> list:
    from tests.fuzz.adapter_folders import Adapters
    from tests.fuzz.histories import Histories
    from tests.fuzz.model_folders import Models
    from tests.fuzz.names import HostileNames
    from tests.fuzz.results import MutatedResults
    from tests.fuzz.states import TrainingStates
    from tests.fuzz.tokenizer_folders import Tokenizers

    return [Histories, MutatedResults, Models, Adapters, Tokenizers, TrainingStates, HostileNames]


def _seeds(kind: str, cases: int) -> list[str]:
    return [f"{kind} {n}" for n in range(cases)]


def _row(kind: str, verdicts: list[Verdict], seconds: float) -> dict[str, object]:
    faults = Counter(fault for v in verdicts for fault in {kind for kind, _ in v.faults})
    outcomes = Counter(outcome for v in verdicts for outcome in set(v.outcomes))
    return {
        "changed": kind,
        "cases": len(verdicts),
        "read": outcomes["read"],
        "refused": outcomes["refused"],
        **{fault: faults[fault] for fault in FAULTS},
        "longest, s": f"{max((v.seconds for v in verdicts), default=0):.1f}",
        "seconds": f"{seconds:.0f}",
    }


if __name__ == "__main__":
    sys.exit(exit_status(main))
