"""Sentences of Markdown, as a reader meets them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from markdown_it import MarkdownIt

END = re.compile(r"(?<=[.!?])[)\"”]*\s+")


def sentences(markdown: str) -> Iterator[str]:
    """Each sentence of paragraphs, items and cells; blocks of code have none."""
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "inline":
            text = "".join(
                " " if child.type in ("softbreak", "hardbreak") else child.content
                for child in token.children or []
                if child.type != "html_inline"
            )
            yield from (each for each in END.split(text.strip()) if each)


def words(sentence: str) -> int:
    """What stands between blanks and has a letter or a digit."""
    return sum(bool(re.search(r"\w", each)) for each in sentence.split())
