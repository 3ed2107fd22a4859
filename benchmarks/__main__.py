"""python -m benchmarks list | plan | run | record: what is claimed, and what the numbers say."""

from __future__ import annotations

import argparse
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.experiments.experiment import PROFILES, REFERENCE
from benchmarks.judging.claims import Claim, load_claims, select
from benchmarks.record import command as record_command
from benchmarks.referee import command as referee_command
from benchmarks.running.ending import Ended, ending_is_raised
from reference_model.command_line import Parser, exit_status, seed
from reference_model.errors import UserError
from reference_model.printing import say, warn

if TYPE_CHECKING:
    from benchmarks.experiments.experiment import Experiment
    from benchmarks.running.plan import PlannedClaim
    from benchmarks.running.runner import State

RECORD = Path(__file__).resolve().parents[1] / ".record" / "cells.sqlite"


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> int:
        options = _parser().parse_args(arguments)
        claims = load_claims()
        if options.command == "list":
            say(_list(claims))
            return 0
        if options.command == "plan":
            say(_plan(claims, options))
            return 0
        if options.command == "record":
            return record_command.run(options, claims)
        if options.command == "referee":
            return referee_command.run(options, claims, _run)
        return _run(claims, options)

    return exit_status(command)


def _parser() -> Parser:
    # An old commit's model, under asv, has none of these.
    from reference_model.command_line import INTERRUPTED, STATUSES, about

    parser = Parser(
        prog="python -m benchmarks",
        description="Measure the model, and decide the claims.",
        example="list",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", **about("print every claim, and what has to hold for it"))
    foretold = commands.add_parser(
        "plan",
        **about("say what a run would measure, how long it takes, and what it can tell"),
        example="--profile full --only 'position.*'",
    )
    add_what(foretold)
    statuses = STATUSES | {
        1: "a cell failed; all others are in the results",
        INTERRUPTED: "interrupted; the same command goes on where it was",
        143: "ended by SIGTERM; the same command goes on where it was",
    }
    run = commands.add_parser(
        "run",
        **about("measure the cells that the record lacks, and write results.json"),
        example="--profile smoke --only 'tying.*' --out results.json",
        statuses=statuses,
    )
    add_what(run)
    run.add_argument(
        "--out", type=Path, required=True, metavar="RESULTS.JSON", help="file for the results"
    )
    run.add_argument(
        "--jobs",
        type=_count,
        metavar="N",
        help="run N cells at once; timed cells run alone (default: the number of cores)",
    )
    run.add_argument("--fresh", action="store_true", help="measure all cells, recorded or not")
    run.add_argument(
        "--accept-code",
        action="store_true",
        help="take cells that other code measured; the results mark their claims as stale",
    )
    run.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="measure only part I of N parts; 'record merge' joins them",
    )
    run.add_argument(
        "--executor",
        choices=("processes", "ray"),
        default="processes",
        help="processes on this machine, or a Ray cluster (needs the extra: ray)",
    )
    run.add_argument("--address", help="HOST:PORT of the Ray cluster (default: start one here)")
    referee_command.add_to(commands, add_subject, _count, statuses)
    record_command.add_to(commands, add_what)
    return parser


def add_what(parser: argparse.ArgumentParser) -> None:
    """The arguments that say what is measured, or was."""
    parser.add_argument(
        "--profile",
        choices=PROFILES,
        default="quick",
        help="smoke: 1 minute; quick: 7 minutes on two cores (default); full: hours or a GPU",
    )
    parser.add_argument(
        "--only", metavar="ID,GLOB", help="claims, such as 'cache.*,tying.saving-small'"
    )
    add_subject(parser)


def add_subject(parser: argparse.ArgumentParser) -> None:
    """The arguments that say of which model and text, and where what is finished is kept."""
    from reference_model.devices import add_device_and_dtype  # an old commit's model has none

    add_device_and_dtype(parser.add_argument)
    parser.add_argument(
        "--model",
        default=REFERENCE,
        metavar="NAME",
        help="reference (default), smollm2, a folder with config.json and model.safetensors, a "
        ".gguf file, or hf: and a folder or hub name that transformers runs",
    )
    parser.add_argument("--text", metavar="FILE", help="text that it reads (default: the plays)")
    parser.add_argument("--seed", type=seed, default=0, metavar="N", help="of all draws")
    parser.add_argument(
        "--record",
        type=Path,
        default=RECORD,
        metavar="FILE",
        help="file with the finished cells (default: .record/cells.sqlite of this checkout)",
    )


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 1024")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is not I/N with I from 1 to N, such as 2/4")
    return int(found[1]), int(found[2])


def _plan(claims: list[Claim], options: argparse.Namespace) -> str:
    selected = select(claims, options.only)
    from benchmarks.instruments.environment import run_stamp
    from benchmarks.record.store import Record
    from benchmarks.running.forecast import HEADERS, REMARK, forecast
    from benchmarks.running.plan import plan
    from benchmarks.running.runner import Rules, known, settings_of

    settings = settings_of(options)
    planned = plan(settings, claims, selected, experiments(), run_stamp(settings))
    with closing(Record(options.record)) as record:
        rows = [*forecast(known(planned, record, Rules()))]
    return f"{_table(HEADERS, rows, wrapped=1)}\n\n{REMARK}"


def _run(
    claims: list[Claim], options: argparse.Namespace, listed: Sequence[Experiment] | None = None
) -> int:
    """``listed``: the experiments, where they are others than all."""
    from benchmarks.record.results import write_results
    from reference_model.files import check_writable  # an old commit's model, under asv, has none

    selected = select(claims, options.only)
    check_writable(options.out)
    # From here on torch is imported, which takes seconds.
    from benchmarks.instruments.environment import StealClock, run_stamp, usable_cores
    from benchmarks.record.store import Record
    from benchmarks.running.assembling import results_of
    from benchmarks.running.plan import in_shard, plan
    from benchmarks.running.runner import Rules, failures, measure, settings_of

    settings = settings_of(options)
    environment = run_stamp(settings)
    planned = plan(settings, claims, selected, listed or experiments(), environment)
    shard = options.shard or (1, 1)
    jobs = options.jobs or (usable_cores() if settings.device == "cpu" else 1)
    rules = Rules(options.fresh, options.accept_code)
    steal = StealClock()
    with closing(Record(options.record)) as record, ending_is_raised():
        try:
            executor = _executor(options, jobs, settings.device)
            chosen = partial(in_shard, index=shard[0], count=shard[1])
            state = measure(planned, record, executor, rules, environment, jobs, chosen)
        except (Ended, KeyboardInterrupt) as end:
            told = "what was finished is kept, and the same command goes on from there"
            warn(f"error: interrupted; {told} ({options.record})")
            return end.status if isinstance(end, Ended) else 130
    results = results_of(state.planned, state, settings, environment)
    if results["environment"] == environment:  # it measured most of them itself
        results["environment"] = {**environment, "steal_during_run": steal.share()}
    write_results(options.out, results)
    say(verdicts(results, {claim.id for claim in selected}))
    failed = list(failures(state.planned, state))
    failed += list(_failed_claims(state.planned, state, results))
    for name, error in failed:
        warn(f"error: {name} failed: {error}")
    if failed:
        names = ",".join(dict.fromkeys(name.partition("[")[0] for name, _ in failed))
        warn(f"error: {len(failed)} failed; to repeat: run the same command with --only {names}")
    return 1 if failed else 0


def experiments() -> list[Any]:
    from benchmarks.experiments.catalogue import all_experiments

    return all_experiments()


def _executor(options: argparse.Namespace, jobs: int, device: str) -> Any:
    if options.executor == "ray":
        from benchmarks.executors.ray_cluster import RayCluster

        return RayCluster(options.address, jobs)
    if options.address is not None:
        raise UserError("--address is of --executor ray; leave it out, or add that")
    from benchmarks.executors.processes import Processes
    from benchmarks.instruments.environment import usable_memory

    return Processes(jobs, device, usable_memory())


def _failed_claims(
    planned: Sequence[PlannedClaim], state: State, results: dict[str, Any]
) -> Iterator[tuple[str, str]]:
    """Claims whose cells are all done and did not make measurements together."""
    because = {claim["id"]: claim["because"] for claim in results["claims"]}
    for each in planned:
        told = because[each.claim.id]
        done = [key in state.lines and state.lines[key].outcome == "done" for _, key in each.cells]
        if done and all(done) and told.startswith("Failed: "):
            yield each.claim.id, told.removeprefix("Failed: ").rstrip(".")


def _list(claims: list[Claim]) -> str:
    rows = [(c.id, c.statement, "; ".join(part.text for part in c.requirements)) for c in claims]
    return _table(("claim", "what is said", "holds if"), rows, wrapped=2)


def verdicts(results: dict[str, Any], selected: set[str]) -> str:
    shown = [claim for claim in results["claims"] if claim["id"] in selected]
    rows = [(claim["id"], _found(claim)) for claim in shown]
    decided = sum(claim["verdict"] != "open" for claim in shown)
    table = _table(("claim", "what was found"), rows, wrapped=1)
    return f"{table}\n\n{decided} of {len(shown)} claims decided"


def _found(claim: dict[str, Any]) -> str:
    """The finding, and below it the scale at which the claim was tested, if it was."""
    at = f"\n(at: {claim['scale']})" if claim["measurements"] else ""
    return f"{claim['finding']}{at}"


def _table(headers: tuple[str, ...], rows: Sequence[tuple[str, ...]], wrapped: int) -> str:
    """A table as wide as the terminal; its last ``wrapped`` columns share what the others leave."""
    from tabulate import tabulate

    fixed = len(headers) - wrapped
    taken = sum(max(len(row[column]) for row in rows) + 2 for column in range(fixed))
    room = max(60, shutil.get_terminal_size((120, 24)).columns - taken) // wrapped - 2
    return tabulate(rows, headers, maxcolwidths=[None] * fixed + [room] * wrapped)


if __name__ == "__main__":
    sys.exit(main())
