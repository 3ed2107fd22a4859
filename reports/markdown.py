"""Texts from elsewhere in Markdown, as GitHub renders it: they stay text, and call for nobody."""

from __future__ import annotations

import html
import re

from reference_model.printing import clean

# GitHub turns these into links and calls after it has rendered, so that a backslash is no help.
# A zero-width space, written as its number, parts them; a reader sees no difference.
APART = "&#8203;"
SPECIAL = re.compile(
    r"(?P<html>[&<>])"
    r"|(?P<mark>[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_]))"
    r"|(?P<call>@(?=\w)|#(?=\d)|\bgh-(?=\d)|:(?=//)|\bwww(?=\.))",
    re.IGNORECASE,
)
# What at the start of a line makes a list, a heading or a rule of it.
BLOCK = re.compile(r"(?:[-+]|#{1,6})(?=\s|$)|[-=](?=[-=\s]*$)|(?<=\d)[.)](?=\s|$)")
NUMBERED = re.compile(r"\d{1,9}")


def text(value: object) -> str:
    """``value`` as one line of plain text, for a paragraph or a cell of a table."""
    escaped = SPECIAL.sub(_escaped, " ".join(clean(str(value), lines=True).split()))
    number = NUMBERED.match(escaped)
    block = BLOCK.match(escaped, number.end() if number else 0)
    return f"{escaped[: block.start()]}\\{escaped[block.start() :]}" if block else escaped


def code(value: object) -> str:
    """``value`` as a code span, in which nothing is a mark; not for a cell, where a bar ends it."""
    return f"`{' '.join(clean(str(value), lines=True).split()).replace('`', chr(39))}`"


def _escaped(found: re.Match[str]) -> str:
    if found["html"]:
        return html.escape(found["html"])
    return f"\\{found['mark']}" if found["mark"] else f"{found['call']}{APART}"
