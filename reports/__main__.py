"""python -m reports build | table | measurements | figures | compare | csv | svg | history."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reference_model.command_line import Parser, exit_status
from reference_model.files import check_writable, write_whole
from reference_model.printing import say, warn

MOST_LINES = 20  # of each kind of trouble that a page tells in full
PUBLISHED = Path(__file__).with_name("published")
WRITTEN_BY = "what python -m benchmarks run wrote"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> None:
        given = _parser().parse_args(arguments)
        given.run(given)

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(prog="python -m reports", description="Show what was measured.")
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser("build", help="write one page that opens without a network")
    build.add_argument(
        "results",
        type=Path,
        nargs="+",
        help=f"{WRITTEN_BY}; of a claim that several files measured, the "
        "later file on the command line counts, and the page says which run that was; a file that "
        "cannot be read is named and skipped, unless none can",
    )
    build.add_argument("--out", type=Path, required=True, help="folder for index.html")
    build.set_defaults(run=_build)

    table = commands.add_parser("table", help="print claims and verdicts as a table")
    table.add_argument("results", type=Path, help=WRITTEN_BY)
    _add_format(table)
    table.add_argument(
        "--into", type=Path, help="a text file that has a place for the table, as Markdown"
    )
    table.set_defaults(run=_table)

    rows = commands.add_parser("measurements", help="print a claim's numbers as a Markdown table")
    rows.add_argument("results", type=Path, help=WRITTEN_BY)
    rows.add_argument("claim", help="such as turboquant.zero-loss")
    rows.add_argument("metrics", nargs="+", help="one column each")
    rows.set_defaults(run=_measurements)

    marked = commands.add_parser("figures", help="write the marked figures of Markdown files anew")
    marked.add_argument(
        "files",
        type=Path,
        nargs="+",
        help="Markdown with marks, as reports/figures.py has them",
    )
    marked.add_argument(
        "--published", type=Path, default=PUBLISHED, help="folder of the files that marks name"
    )
    marked.set_defaults(run=_figures)

    beside = commands.add_parser("compare", help="show two or more results side by side")
    beside.add_argument("results", type=Path, nargs="+", help=WRITTEN_BY)
    _add_format(beside)
    beside.add_argument("--all", action="store_true", help="list measurements that agree, too")
    beside.add_argument(
        "--out", type=Path, metavar="PAGE.HTML", help="write a page of every measurement instead"
    )
    beside.set_defaults(run=_compare)

    numbers = commands.add_parser("csv", help="print all measurements, one a row")
    numbers.add_argument("results", type=Path, help=WRITTEN_BY)
    numbers.add_argument(
        "--out", type=Path, metavar="FILE.CSV", help="write them to a file instead"
    )
    numbers.set_defaults(run=_csv)

    drawings = commands.add_parser("svg", help="write each chart as a drawing of its own")
    drawings.add_argument("results", type=Path, help=WRITTEN_BY)
    drawings.add_argument("--out", type=Path, required=True, help="folder for the drawings")
    drawings.set_defaults(run=_svg)

    history = commands.add_parser("history", help="write asv's series and their steps as one page")
    history.add_argument("results", type=Path, help="asv's folder of results: .asv/results")
    history.add_argument("--out", type=Path, required=True, help="the page, such as history.html")
    history.add_argument(
        "--repository", type=Path, default=Path(), help="whose HEAD orders commits"
    )
    history.set_defaults(run=_history)
    return parser


def _add_format(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--format",
        choices=("text", "markdown"),
        default="text",
        help="text for a terminal (the default), markdown for a README or a pull request",
    )


def _build(given: argparse.Namespace) -> None:
    from reports.render.site import build_site

    check_writable(given.out / "index.html")
    say(build_site(given.results, given.out))


def _table(given: argparse.Namespace) -> None:
    from benchmarks.results import read_results
    from reports.table import put_into, terminal_table, verdict_table

    if given.into:
        check_writable(given.into)
    results = read_results(given.results)
    if given.into:
        put_into(given.into, verdict_table(results))
    else:
        say(verdict_table(results) if given.format == "markdown" else terminal_table(results))


def _history(given: argparse.Namespace) -> None:
    from reports.history.page import build_history

    check_writable(given.out)
    view = build_history(given.results, given.out, given.repository)
    skipped = [f"skipped {name}: {reason}" for name, reason in view["skipped_files"]]
    failed = [row for row in view["broken"] if row["state"] == "failed"]
    broken = [f"failed {row['benchmark']}, {row['machine']}, at {row['hash']}" for row in failed]
    for lines in (skipped, broken):
        for line in lines[:MOST_LINES]:
            warn(line)
        if len(lines) > MOST_LINES:
            warn(f"{lines[0].partition(' ')[0]} {len(lines) - MOST_LINES:,} more")
    counts = view["counts"]
    say(
        f"{counts['series']} series, {counts['steps']} steps, {counts['worse']} for the worse; "
        f"{len(failed)} series failed at their newest commit"
    )
    say(f"The history: {given.out.resolve().as_uri()}")


def _measurements(given: argparse.Namespace) -> None:
    from benchmarks.results import read_results
    from reports.table import measurement_table

    say(measurement_table(read_results(given.results), given.claim, given.metrics))


def _figures(given: argparse.Namespace) -> None:
    from reports.figures import write_figures

    count = sum(write_figures(path, given.published) for path in given.files)
    say(f"{count} figures in {len(given.files)} files")


def _compare(given: argparse.Namespace) -> None:
    from benchmarks.results import read_results
    from reports.compare import as_text, compare

    if given.out:
        check_writable(given.out)
    comparison = compare([(str(path), read_results(path)) for path in given.results])
    if given.out:
        from reports.render.comparison import render_comparison

        _write(given.out, render_comparison(comparison))
    else:
        layout = "github" if given.format == "markdown" else "simple"
        say(as_text(comparison, given.all, layout))


def _csv(given: argparse.Namespace) -> None:
    from benchmarks.results import read_results
    from reports.export import as_csv

    if given.out:
        check_writable(given.out)
    text = as_csv(read_results(given.results))
    if given.out:
        _write(given.out, text)
    else:
        say(text, end="")


def _svg(given: argparse.Namespace) -> None:
    from benchmarks.results import read_results
    from reports.export import as_svgs

    check_writable(given.out / "chart.svg")
    drawings = as_svgs(read_results(given.results))
    write_whole(given.out, {name: svg.encode() for name, svg in drawings.items()})
    say(f"{len(drawings)} drawings in {given.out}")


def _write(path: Path, text: str) -> None:
    write_whole(path.parent, {path.name: text.encode()})
    if path.is_file():  # a line more would belong to what went through a pipe
        say(path)


if __name__ == "__main__":
    sys.exit(main())
