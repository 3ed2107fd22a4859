"""The axes of numbers. Whether one is a log axis, and what such a one does with 0, is settled here.

A logarithm has no place for 0 and less, and Vega draws them at the edge where the *largest* numbers
are: they are drawn at a tenth of the smallest number above 0 instead, and a note says so.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import altair as alt

Row = dict[str, Any]
Channel = TypeVar("Channel", alt.X, alt.Y)
DRAWN = ("low", "value", "high")  # the numbers of a row
# Whole numbers in full and all others to three digits, as everywhere.
TICK = "datum.value % 1 ? format(datum.value, ',.3~r') : format(datum.value, ',d')"
LARGEST, SMALLEST = sys.float_info.max_10_exp, sys.float_info.min_10_exp  # powers of ten


@dataclass(frozen=True)
class ValueScale:
    """The scale of the values that are drawn along one axis."""

    lowest: float
    highest: float
    log: bool
    floor: float = 0.0  # of a log scale: where 0 and less is drawn

    @classmethod
    def over(cls, rows: Iterable[Row], log: bool, borders: Sequence[float] = ()) -> ValueScale:
        """Of the rows, and of borders beside them; a log scale if one is asked for and a row has
        anything that it can show.
        """
        numbers = [row[key] for row in rows for key in DRAWN]
        if not log or max(numbers) <= 0:
            return cls(min(numbers), max(numbers), log=False)
        above = [number for number in (*numbers, *borders) if number > 0]
        floor = min(above) / 10 or min(above)  # the smallest float has no tenth
        lowest = floor if min(numbers) <= 0 else min(above)
        return cls(lowest, max(above), log=True, floor=floor)

    def place(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with each number where the scale has a place for it."""
        if not self.log:
            return list(rows)
        return [
            {k: self.floor if k in DRAWN and v <= 0 else v for k, v in row.items()} for row in rows
        ]

    def note(self, rows: Sequence[Row]) -> str:
        """What a reader has to know of rows that were moved; "" where none was."""
        moved = self.log and any(row[key] <= 0 for row in rows for key in DRAWN)
        return "0 and less is drawn at a tenth of the smallest other number." if moved else ""

    def axis(self, channel: type[Channel], title: str) -> Channel:
        """On a log scale it has a tick at each power of ten, or few more."""
        if not self.log:
            scale = alt.Scale(zero=False)
            axis = alt.Axis(tickCount=5, grid=True, labelOverlap=True)
            return channel("value:Q", title=title, scale=scale, axis=axis)
        low, high = math.log10(self.lowest), math.log10(self.highest)
        margin = max(0.06 * (high - low), 0.03)
        first, last = max(low - margin, SMALLEST), min(high + margin, LARGEST)
        powers = range(math.floor(first), math.ceil(last) + 1)
        steps = (1,) if high - low > 2 else (1, 2, 5)
        spacing = -(-len(powers) // 8)
        ticks = [
            step * 10.0 ** min(power, LARGEST) for power in powers[::spacing] for step in steps
        ]
        scale = alt.Scale(type="log", nice=False, domain=[10.0**first, 10.0**last])
        plain = self.lowest >= 1e-4 and self.highest < 1e7
        axis = alt.Axis(values=ticks, format=",~g" if plain else ".0e", grid=True)
        return channel("value:Q", title=title, scale=scale, axis=axis)


def parameter_axis(title: str, values: Sequence[float], log: bool) -> alt.X:
    """Of the parameter x; ticks at the tested values themselves where these grow by factors."""
    if not log or min(values) <= 0:
        axis = alt.Axis(tickCount=8, grid=False)
        return alt.X("x:Q", title=title, scale=alt.Scale(zero=False, nice=False), axis=axis)
    tested = sorted(set(values))
    axis = alt.Axis(values=tested[:: -(-len(tested) // 8)], grid=False, labelExpr=TICK)
    return alt.X("x:Q", title=title, scale=alt.Scale(type="log", base=2, nice=False), axis=axis)
