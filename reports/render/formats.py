"""Numbers, units and sources as a reader wants to see them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from benchmarks.judging.label_words import NOTATION
from benchmarks.judging.rounding import Side, figures, number, setting

ARXIV = re.compile(r"arXiv[: ]\s*(?P<number>\d{4}\.\d{4,5})(v\d+)?", re.IGNORECASE)
URL = re.compile(r"https?://[^\s<>\"']+[^\s<>\"'.,;:)]")

# The texts that the claims were taken from, by the letters they have in claims.toml: what a claim
# calls them, and what they are.
PUBLICATIONS = {
    "S1": ("summary", "an editorial summary of the article"),
    "S2": ("retelling", "a long retelling of the article"),
    "S3": (
        "article",
        "“6 Things I Learned Building LLMs From Scratch That No Tutorial Teaches You”, "
        "Towards Data Science, April 2026: a builder's report on writing GPT-2 in plain PyTorch",
    ),
    "S4": ("podcast", "a podcast about the article"),
    "S5": ("news", "a news piece"),
}


def with_interval(
    value: float, interval: Sequence[float] | None, side: Side | None = None
) -> tuple[str, str]:
    """The value and its interval, "[1.33, 1.40]", by the rule of benchmarks.judging.rounding."""
    ends = None if interval is None else (interval[0], interval[1])
    told = figures(value, ends, side)
    return told.value, "exact" if told.low is None else f"[{told.low}, {told.high}]"


def shown(measurement: dict[str, Any]) -> str:
    """A measurement in a cell: "1.36 [1.33, 1.40]"."""
    value, interval = with_interval(measurement["value"], measurement["interval"])
    return value if measurement["interval"] is None else f"{value} {interval}"


def byte_size(value: float) -> str:
    """16777216000 -> "16.8 GB" (decimal, as memory is sold and as the claims speak)."""
    for exponent, name in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if abs(value) >= 10**exponent:
            return f"{number(value / 10**exponent)} {name}"
    return f"{number(round(value))} bytes"


def label(value: Any) -> str:
    """A parameter's value in a table cell or a legend."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return setting(value)
    return NOTATION.get(str(value), str(value))


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return f"{text[:1].upper()}{text[1:]}" + ("" if text.endswith((".", "!", "?")) else ".")


def words(name: str) -> str:
    """``first_to_last_ratio`` -> "first to last ratio"."""
    return name.replace("_", " ")


def duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    if seconds < 0.95:
        return "less than a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def moment(text: Any) -> str:
    """An ISO time as "22 November 2026, 05:26 UTC"; anything else as it stands."""
    try:
        time = datetime.fromisoformat(str(text))
    except ValueError:
        return str(text)
    return f"{time.day} {time:%B %Y, %H:%M} UTC"


def pieces(source: str) -> list[tuple[str, str | None]]:
    """A source as (text, address or None) pieces: arXiv numbers and addresses become links."""
    found = sorted(
        [(match.span(), _arxiv_address(match)) for match in ARXIV.finditer(source)]
        + [(match.span(), match[0]) for match in URL.finditer(source)]
    )
    result: list[tuple[str, str | None]] = []
    end = 0
    for (start, stop), address in found:
        if start < end:  # an arXiv number inside an address
            continue
        if start > end:
            result.append((source[end:start], None))
        result.append((source[start:stop], address))
        end = stop
    if end < len(source):
        result.append((source[end:], None))
    return result


def _arxiv_address(match: re.Match[str]) -> str:
    return f"https://arxiv.org/abs/{quote(match['number'])}"
