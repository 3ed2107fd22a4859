"""python -m reports build | table | measurements | figures | compare | csv | svg | badge | …."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from reference_model.command_line import Parser, about, exit_status
from reference_model.files import check_writable, write_whole
from reference_model.printing import say, warn

MOST_LINES = 20  # of each kind of trouble that a page tells in full
PUBLISHED = Path(__file__).with_name("published")
WRITTEN_BY = "a results.json that python -m benchmarks run wrote"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""

    def command() -> None:
        given = _parser().parse_args(arguments)
        given.run(given)

    return exit_status(command)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m reports",
        description="Show results as a page, a table, CSV, charts or a comparison.",
        example="table reports/published/quick.json",
    )
    commands = parser.add_subparsers(dest="command", required=True)

    build = commands.add_parser(
        "build",
        **about("write one page that opens without a network"),
        example="reports/published/quick.json --out page",
    )
    build.add_argument(
        "results",
        type=Path,
        nargs="+",
        help=f"{WRITTEN_BY}, or a folder of them. The page takes each claim from the last file "
        "that measured it; in a folder the fuller profile is last. A file that cannot be read is "
        "named and skipped.",
    )
    build.add_argument("--out", type=Path, required=True, help="folder for index.html")
    build.set_defaults(run=_build)

    table = commands.add_parser(
        "table",
        **about("print claims and verdicts as a table"),
        example="reports/published/quick.json --format markdown",
    )
    told = (
        f"{WRITTEN_BY}, or a folder of them. What was found of another model than the first file's "
        "has its own column."
    )
    table.add_argument("results", type=Path, nargs="+", help=told)
    _add_format(table)
    _add_into(table)
    table.set_defaults(run=_table)

    rows = commands.add_parser(
        "measurements",
        **about("print a claim's numbers as a Markdown table"),
        example="reports/published/quick.json turboquant.zero-loss loss_increase",
    )
    rows.add_argument("results", type=Path, help=WRITTEN_BY)
    rows.add_argument("claim", help="id of a claim, such as turboquant.zero-loss")
    rows.add_argument("metrics", nargs="+", help="names of metrics, a column each")
    _add_into(rows)
    rows.set_defaults(run=_measurements)

    marked = commands.add_parser(
        "figures",
        **about("write the marked figures of Markdown files anew"),
        example="README.md",
    )
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

    beside = commands.add_parser(
        "compare",
        **about("print two or more results side by side"),
        example="reports/published/quick.json results.json --out comparison.html",
    )
    beside.add_argument("results", type=Path, nargs="+", help=WRITTEN_BY)
    _add_format(beside)
    beside.add_argument("--all", action="store_true", help="list equal measurements, too")
    beside.add_argument("--out", type=Path, metavar="PAGE.HTML", help="write a page instead")
    beside.set_defaults(run=_compare)

    numbers = commands.add_parser(
        "csv",
        **about("print all measurements as CSV, one per row"),
        example="reports/published/quick.json --out measurements.csv",
    )
    numbers.add_argument("results", type=Path, help=WRITTEN_BY)
    numbers.add_argument(
        "--out", type=Path, metavar="FILE.CSV", help="write them to a file instead"
    )
    numbers.set_defaults(run=_csv)

    drawings = commands.add_parser(
        "svg",
        **about("write each chart as an SVG file"),
        example="reports/published/quick.json --out charts",
    )
    drawings.add_argument("results", type=Path, help=WRITTEN_BY)
    drawings.add_argument("--out", type=Path, required=True, help="folder for the drawings")
    drawings.set_defaults(run=_svg)

    small = commands.add_parser(
        "badge",
        **about("write the verdict of each claim, or of the gate, as a small SVG"),
        example="reports/published/quick.json --out badges",
    )
    small.add_argument("report", type=Path, help=f"{WRITTEN_BY}, or the gate's --json")
    small.add_argument(
        "--claim", metavar="ID", help="only this claim, such as cache.fifteen-tokens"
    )
    small.add_argument("--out", type=Path, required=True, help="folder for the badges")
    small.set_defaults(run=_badge)

    history = commands.add_parser(
        "history",
        **about("write the series of asv or pytest-benchmark, and their steps, as one page"),
        example=".asv/results --out history.html",
    )
    history.add_argument(
        "results",
        type=Path,
        help="folder of asv (.asv/results) or of pytest-benchmark (.benchmarks)",
    )
    history.add_argument("--out", type=Path, required=True, help="the page, such as history.html")
    history.add_argument(
        "--repository", type=Path, default=Path(), help="its HEAD gives the order of the commits"
    )
    history.set_defaults(run=_history)
    return parser


def _add_into(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--into", type=Path, help="a Markdown file; the table replaces the lines between its marks"
    )


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
    from reports.merge_results import merge_results
    from reports.table import put_into, terminal_table, verdict_table

    if given.into:
        check_writable(given.into)
    results = merge_results(given.results)
    if given.into:
        put_into(given.into, verdict_table(results))
    else:
        say(verdict_table(results) if given.format == "markdown" else terminal_table(results))


def _history(given: argparse.Namespace) -> None:
    from benchmarks.gate_suite import EXACT, EXACT_BUT_LONG
    from reports.history.page import build_history

    check_writable(given.out)
    ours = given.repository.resolve() == Path(__file__).resolve().parents[1]
    exactness = {**EXACT_BUT_LONG, **EXACT} if ours else {}
    view = build_history(given.results, given.out, given.repository, exactness)
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
    from reports.reading import read
    from reports.table import MEASUREMENTS, measurement_table, put_into

    if given.into:
        check_writable(given.into)
    table = measurement_table(read(given.results), given.claim, given.metrics)
    if given.into:
        put_into(given.into, table, MEASUREMENTS)
    else:
        say(table)


def _figures(given: argparse.Namespace) -> None:
    from reports.figures import write_figures

    count = sum(write_figures(path, given.published) for path in given.files)
    say(f"{count} figures in {len(given.files)} files")


def _compare(given: argparse.Namespace) -> None:
    from reports.compare import as_text, compare
    from reports.reading import read

    if given.out:
        check_writable(given.out)
    comparison = compare([(str(path), read(path)) for path in given.results])
    if given.out:
        from reports.render.comparison import render_comparison

        _write(given.out, render_comparison(comparison))
    else:
        layout = "github" if given.format == "markdown" else "simple"
        say(as_text(comparison, given.all, layout))


def _csv(given: argparse.Namespace) -> None:
    from reports.export import as_csv
    from reports.reading import read

    if given.out:
        check_writable(given.out)
    text = as_csv(read(given.results))
    if given.out:
        _write(given.out, text)
    else:
        say(text, end="")


def _svg(given: argparse.Namespace) -> None:
    from reports.export import as_svgs
    from reports.reading import read

    check_writable(given.out / "chart.svg")
    drawings = as_svgs(read(given.results))
    write_whole(given.out, {name: svg.encode() for name, svg in drawings.items()})
    say(f"{len(drawings)} drawings in {given.out}")


def _badge(given: argparse.Namespace) -> None:
    from reports.badge import badges

    check_writable(given.out / "badge.svg")
    found = badges(given.report, given.claim)
    write_whole(given.out, {name: svg.encode() for name, svg in found.items()})
    say(f"{len(found)} badge{'' if len(found) == 1 else 's'} in {given.out}")


def _write(path: Path, text: str) -> None:
    write_whole(path.parent, {path.name: text.encode()})
    if path.is_file():  # a line more would belong to what went through a pipe
        say(path)


if __name__ == "__main__":
    sys.exit(main())
