"""Numbers, units and sources as a reader wants to see them."""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any
from urllib.parse import quote

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
MINUS = "\N{MINUS SIGN}"
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


# Names that the results spell in ASCII.
NOTATION = {
    "alpha/r": "α/r",
    "alpha/sqrt(r)": "α/√r",
    "alpha/r^0.6": "α/r^0.6 for α/√r",
    "init off by sqrt(2)": "√2 in the deviation of A",
    "rho = 0.1": "a correlation of 0.1 across the rank",
}


def number(value: float, digits: int = 4) -> str:
    """``value`` to ``digits`` significant ones; whole numbers in full, with separators."""
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}".replace("-", MINUS)
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 <= magnitude < 7:
        mantissa, power = scientific(value, digits).split(" ", 1)
        return f"{_trimmed(mantissa)} {power}"
    decimals = max(0, digits - 1 - magnitude)
    return _trimmed(f"{value:,.{decimals}f}")


def scientific(value: float, digits: int) -> str:
    """``digits`` significant ones, all of them shown: 3.0 × 10⁻¹⁵."""
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = str(int(exponent)).translate(SUPERSCRIPTS)
    return f"{mantissa.replace('-', MINUS)} × 10{power}"


def with_interval(value: float, interval: tuple[float, float] | None) -> tuple[str, str]:
    """The value and its interval with the digits that the interval's width justifies."""
    if interval is None:
        return number(value, 6), "exact"
    low, high = interval
    half = high / 2 - low / 2  # the difference itself may be too large for a float
    largest = max(abs(value), abs(low), abs(high))
    if half <= 0 or largest == 0:
        return number(value), f"[{number(low)}, {number(high)}]"
    kept = min(8, max(2, 2 + math.floor(math.log10(largest)) - math.floor(math.log10(half))))
    if not 1e-4 <= largest < 1e7:
        numbers = [scientific(x, kept) for x in (value, low, high)]
    else:
        decimals = max(0, 1 - math.floor(math.log10(half)))
        numbers = [f"{x:,.{decimals}f}".replace("-", MINUS) for x in (value, low, high)]
    return numbers[0], f"[{numbers[1]}, {numbers[2]}]"


def byte_size(value: float) -> str:
    """16777216000 -> "16.8 GB" (decimal, as memory is sold and as the claims speak)."""
    for exponent, name in ((12, "TB"), (9, "GB"), (6, "MB"), (3, "kB")):
        if abs(value) >= 10**exponent:
            return f"{value / 10**exponent:.3g} {name}"
    return f"{value:.0f} bytes"


def label(value: Any) -> str:
    """A parameter's value in a table cell or a legend."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value)
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


def _trimmed(text: str) -> str:
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", MINUS)
