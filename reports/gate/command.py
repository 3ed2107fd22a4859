"""The gate's command: arguments, exit status, and the files that were asked for.

Its first word may name another command, which has a module of its own.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from reference_model.command_line import Parser, is_ours, lacking, seed
from reference_model.devices import DTYPES
from reference_model.errors import UserError
from reference_model.printing import say, warn
from reports.gate.verdict import NotComparable, Verdict

if TYPE_CHECKING:
    from reports.gate.compare import Report, Request


# Seconds beyond the budget after which a process must hang: with what is to be tidied up then, a
# gate ends within eight minutes, whatever it waits for.
GRACE = 20.0


# First word → a module with ``main(arguments)``, which returns the exit status.
COMMANDS = {name: f"reports.gate.{name}" for name in ("accept", "find", "plan")}


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status. The files that were asked for are written in any case."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in COMMANDS:
        return _other(words[0], words[1:])
    given: argparse.Namespace | None = None
    request: Request | None = None

    def act() -> int:
        nonlocal given, request
        given = _parser().parse_args(words)
        if given.plan:
            return _other("plan", [word for word in words if word != "--plan"])
        check_system()
        request = request_of(given)
        _check_outputs(given)
        return _run(given, request)

    return answered(act, lambda verdict, reason: _failed(given, request, verdict, reason))


def _other(name: str, arguments: Sequence[str]) -> int:
    return int(import_module(COMMANDS[name]).main(arguments))


def answered(act: Callable[[], int], failed: Callable[[Verdict, str], int]) -> int:
    """The exit status of ``act``, or of ``failed`` with a verdict and the reason why there is none.

    Signals interrupt, so that checkouts are removed, and no timer is left behind.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has one of them
        if number and signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupted)
    try:
        return act()
    except NotComparable as reason:
        return failed(Verdict.NOT_COMPARABLE, str(reason))
    except UserError as error:
        return failed(Verdict.ERROR, str(error))
    except KeyboardInterrupt:
        return failed(Verdict.ERROR, "interrupted")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and not is_ours(error):
            return failed(Verdict.ERROR, lacking(error))
        warn(traceback.format_exc(), lines=True)
        return failed(Verdict.ERROR, f"{type(error).__name__}: {error}")
    finally:
        end_after(0.0)


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
    ask(parser)
    told = "only tell what would be compared, how long it takes and what it would find"
    parser.add_argument("--plan", action="store_true", help=told)
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--html", type=Path, help="file for a page with charts")
    parser.add_argument("--markdown", type=Path, help="file for a pull request's summary")
    return parser


def ask(parser: Parser) -> None:
    """The arguments that make a request: what is compared, on what, and for how long."""
    parser.add_argument("--base", required=True, help="commit to compare with, such as HEAD~1")
    parser.add_argument("--head", required=True, help="commit that is judged, such as HEAD")
    parser.add_argument("--select", default="*", help="compare only these: '*turboquant*'")
    parser.add_argument("--budget", type=_seconds, help="seconds for the whole run (default: 450)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    told = "measure this model: smollm2, a folder or a .gguf file (default: the suite's own)"
    parser.add_argument("--model", type=_place, metavar="NAME", help=told)
    parser.add_argument("--dtype", choices=DTYPES, help="of its weights (default: float32)")
    parser.add_argument("--seed", type=seed, help="of the order of runs (default: drawn)")
    parser.add_argument("--base-python", help="Python for base (default: this one)")
    parser.add_argument("--head-python", help="Python for head (default: this one)")


def _place(text: str) -> str:
    """Where a model is, for processes in other folders; a name stays one."""
    if text != "smollm2" and Path(text).exists():  # whatever lies here by that name
        return str(Path(text).resolve())
    if "/" in text or text.endswith(".gguf"):
        raise argparse.ArgumentTypeError(f"there is no file or folder {text}")
    return text


def check_system() -> None:
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


def request_of(given: argparse.Namespace) -> Request:
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
        model=given.model,
        dtype=given.dtype,
    )


def _run(given: argparse.Namespace, request: Request) -> int:
    from reports.gate.compare import BUDGET, compare
    from reports.gate.output import terminal

    end_after(max(request.budget, BUDGET) + GRACE)
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


def end_after(seconds: float) -> None:
    """`UserError` then; never, where it is 0."""
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
