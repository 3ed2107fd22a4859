"""Figures in Markdown that are written from published results, between marks nobody sees.

A mark is a comment that names a figure, the figure, and a comment that ends it:

    <!-- = quick.json cache.fifteen-tokens/speedup[new_tokens=15] -->1.44 (1.31–1.59)<!-- / -->

The first word is a file of reports/published. The rest is the path to the figure in it, step by
step, with labels that choose among the items of a list. In a results file a measurement's id is its
path, and labels may be left out as long as it is the only one. Then come, where they are needed:

    A over B        one over the other; over lists the geometric mean of the ratios, pair by pair
    as percent      or MB, inverse: another scale
    as value        or interval, low, high, n: a part of it
    as least        or most, mean, rms, sum, count: one number of several
    as finding      of a claim: its finding; or its verdict, statement, scale

``python -m reports figures FILE.md …`` writes what stands between the marks anew.
"""

from __future__ import annotations

import re
from pathlib import Path

from reference_model.errors import UserError
from reference_model.files import write_whole
from reports.published_figures import figure_text

START, END = "<!-- = ", "<!-- / -->"
MARK = re.compile(r"<!-- = (?P<name>[^>]+?) -->(?P<text>(?:(?!<!--).)*?)<!-- / -->", re.DOTALL)
CODE = re.compile(r"^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)`*~*[ \t]*$|`[^`\n]+`", re.M | re.S)
# A comment at the start of a line ends the paragraph, and what follows it is no Markdown.
AT_START = re.compile(r"^[ \t]*(?:[-*+>][ \t]+|\d+[.)][ \t]+)*<!-- = ", re.M)


def write_figures(path: Path, published: Path) -> int:
    """Write every marked figure of a Markdown file anew; the number of them.

    UserError, in one line that names the file and its line, where a mark names no figure.
    """
    try:
        text = path.read_bytes().decode("utf-8")  # its line ends are its own
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}; name a Markdown file") from None
    new, count = with_figures(text, published, str(path))
    if new != text:
        write_whole(path.parent, {path.name: new.encode()})
    return count


def with_figures(text: str, published: Path, where: str) -> tuple[str, int]:
    """``text`` with its marked figures as ``published`` has them, and how many they are."""
    prose = _without_code(text)
    _check(prose, where)
    parts, end, count = [], 0, 0
    for mark in MARK.finditer(prose):
        name = " ".join(text[slice(*mark.span("name"))].split())
        try:
            figure = figure_text(published, name)
        except UserError as error:
            raise UserError(f"{where}, line {_line(text, mark.start())}: {error}") from None
        parts += [text[end : mark.start("text")], figure]
        end = mark.end("text")
        count += 1
    return "".join([*parts, text[end:]]), count


def typed_by_hand(text: str) -> str:
    """``text`` as long as it was, with blanks for its code and its marked figures."""
    return MARK.sub(_blank, _without_code(text))


def _without_code(text: str) -> str:
    return CODE.sub(_blank, text)


def _blank(found: re.Match[str]) -> str:
    return re.sub(r"[^\n]", "\N{LOWER ONE EIGHTH BLOCK}", found[0])


def _check(prose: str, where: str) -> None:
    whole = {mark.start() for mark in MARK.finditer(prose)}
    for found in re.finditer(re.escape(START), prose):
        if found.start() not in whole:
            line = _line(prose, found.start())
            raise UserError(
                f"{where}, line {line}: a mark has no end; write {END} after the figure"
            )
    first = AT_START.search(prose)
    if first:
        line = _line(prose, first.end())
        raise UserError(
            f"{where}, line {line}: a mark starts a line, which ends a paragraph; put a word first"
        )


def _line(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
