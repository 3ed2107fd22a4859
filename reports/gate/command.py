"""The gate's command: arguments, exit status, and the files that were asked for."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from reference_model.command_line import Parser, is_ours, lacking, seed
from reference_model.errors import UserError
from reference_model.printing import say, warn
from reports.gate.verdict import NotComparable, Verdict

if TYPE_CHECKING:
    from reports.gate.compare import Report, Request


# Seconds beyond the budget after which a process must hang: with what is to be tidied up then, a
# gate ends within eight minutes, whatever it waits for.
GRACE = 20.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status. The files that were asked for are written in any case."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["accept"]:
        from reports.gate.accept import main as accept

        return accept(words[1:])
    for name in ("SIGTERM", "SIGHUP"):  # so that checkouts are removed
        number = getattr(signal, name, None)  # Windows has one of them
        if number and signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupted)
    given = request = None
    try:
        given = _parser().parse_args(words)
        _check_system()
        request = _request(given)
        _check_outputs(given)
        return _run(given, request)
    except NotComparable as reason:
        return _failed(given, request, Verdict.NOT_COMPARABLE, str(reason))
    except UserError as error:
        return _failed(given, request, Verdict.ERROR, str(error))
    except KeyboardInterrupt:
        return _failed(given, request, Verdict.ERROR, "interrupted")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not is_ours(error):
            return _failed(given, request, Verdict.ERROR, lacking(error))
        warn(traceback.format_exc(), lines=True)
        return _failed(given, request, Verdict.ERROR, f"{type(error).__name__}: {error}")
    finally:
        _end_after(0.0)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports.gate",
        description="Say whether a commit made the model slower, larger or worse.",
        example="--base HEAD~1 --head HEAD --html gate.html",
        statuses={
            Verdict.PASS: "pass: nothing is worse",
            Verdict.REGRESSION: "regression: something is worse, and is named",
            Verdict.INCONCLUSIVE: "inconclusive: the budget ended first; --budget lends more time",
            Verdict.ERROR: "error: nothing was judged, and one line says why",
            Verdict.NOT_COMPARABLE: "not comparable: the commits need different packages",
        },
    )
    parser.add_argument("--base", required=True, help="commit to compare with, such as HEAD~1")
    parser.add_argument("--head", required=True, help="commit that is judged, such as HEAD")
    parser.add_argument("--select", default="*", help="compare only these: '*turboquant*'")
    parser.add_argument("--budget", type=_seconds, help="seconds for the whole run (default: 450)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--seed", type=seed, help="of the order of runs (default: drawn)")
    parser.add_argument("--base-python", help="Python for base (default: this one)")
    parser.add_argument("--head-python", help="Python for head (default: this one)")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--html", type=Path, help="file for a page with charts")
    parser.add_argument("--markdown", type=Path, help="file for a pull request's summary")
    return parser


def _check_system() -> None:
    if not hasattr(os, "killpg"):
        raise UserError("the gate runs on Linux and macOS; on Windows use its subsystem for Linux")


def _check_outputs(given: argparse.Namespace) -> None:
    """`UserError` before anything is measured, not minutes later."""
    from reference_model.files import check_writable

    for path in (given.json, given.html, given.markdown):
        if path:
            check_writable(path)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return value


def _request(given: argparse.Namespace) -> Request:
    from reports.gate.compare import BUDGET, Request

    return Request(
        given.base,
        given.head,
        given.select,
        given.budget or BUDGET,
        given.device,
        given.seed,
        given.base_python,
        given.head_python,
    )


def _run(given: argparse.Namespace, request: Request) -> int:
    from reports.gate.compare import BUDGET, compare
    from reports.gate.output import terminal

    _end_after(max(request.budget, BUDGET) + GRACE)
    report = compare(Path.cwd(), request, warn)
    try:
        say(terminal(report))
    finally:
        _write(given, report)
    return int(report["exit_status"])


def _failed(
    given: argparse.Namespace | None, request: Request | None, verdict: Verdict, reason: str
) -> int:
    """Say why there is no verdict, also in the files, and never as one."""
    reason = " ".join(reason.split())
    warn(f"{verdict.words}: {reason}")
    try:
        if given is not None and (given.json or given.html or given.markdown):
            from reports.gate.compare import failed

            _write(given, failed(request, verdict, reason))
    except Exception as error:
        warn(f"error: {error}")
    return int(verdict)


def _write(given: argparse.Namespace, report: Report) -> None:
    """All that can be written; then `UserError` where one could not be."""
    from reference_model.files import write_whole
    from reports.gate.output import as_json, markdown
    from reports.gate.page import render

    failure = None
    forms = ((given.json, as_json), (given.html, render), (given.markdown, markdown))
    for path, form in forms:
        if path:
            try:
                write_whole(path.parent, {path.name: form(report).encode()})
            except UserError as error:
                failure = failure or error
    if failure:
        raise failure


def _end_after(seconds: float) -> None:
    """Never, where it is 0."""
    if hasattr(signal, "setitimer"):  # not on Windows
        signal.signal(signal.SIGALRM, partial(_out_of_time, seconds))
        signal.setitimer(signal.ITIMER_REAL, seconds)


def _out_of_time(seconds: float, number: int, frame: FrameType | None) -> None:
    raise UserError(
        f"no verdict within {seconds:.0f} seconds: a benchmark hangs, or this machine is too slow; "
        "--select fewer of them"
    )


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
