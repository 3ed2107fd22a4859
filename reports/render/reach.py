"""From where to where the numbers of a chart reach, in words for its title."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.judging.rounding import setting
from benchmarks.judging.sentences import UNITS
from reports.render.scales import Row

LONGEST = 70  # characters of both cases' names: with more, the numbers stand alone


def reach(rows: Sequence[Row], x_title: str = "") -> str:
    """As "lowest 1.40 (rank 256), highest 1.43 nats a token (rank 4)"; "" of a single number.

    A row has ``value``, its ``text`` as the chart shows it, ``name`` and ``unit``; of a curve also
    ``x``, which ``x_title`` names.
    """
    if len(rows) < 2:
        return ""
    low, high = (pick(rows, key=lambda row: row["value"]) for pick in (min, max))
    own = high["unit"]
    told = own[:1].isalpha() and not high["text"].endswith("%")
    unit = UNITS.get(own, f" {own}") if told else ""
    if low["text"] == high["text"]:
        return f"{high['text']}{unit} in each of {len(rows)} cases"
    names = [_name(row, x_title) for row in (low, high)]
    least, most = (f" ({name})" if sum(map(len, names)) <= LONGEST else "" for name in names)
    return f"lowest {low['text']}{least}, highest {high['text']}{unit}{most}"


def _name(row: Row, x_title: str) -> str:
    name = " ".join(row["name"].split())
    at = f"{x_title.partition(' (')[0]} {setting(row['x'])}" if x_title else ""
    return ", ".join(filter(None, (name, at)))
