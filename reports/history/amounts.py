"""How values are written, and rounded before the page stores them: page.js writes them alike."""

from __future__ import annotations

import math

from benchmarks.judging.rounding import MINUS, number, to_digits

DIGITS = {True: 10, False: 4}  # exact: a difference of one is to be seen; noisy
PREFIXES = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"))  # below, times, written
SECONDS = ("s", "seconds")


def rounded(value: float, exact: bool) -> float:
    """To the digits that are shown; all of those before the point are kept."""
    return to_digits(value, DIGITS[exact])


def amount(value: float, unit: str, exact: bool) -> str:
    """A time with its unit, anything else without: the unit stands beside its series."""
    value = rounded(value, exact)
    if unit not in SECONDS:
        return _digits(value, exact)
    for below, times, written in PREFIXES:
        if 0 < abs(value) < below:
            return f"{_digits(value * times, exact)} {written}"
    return f"{_digits(value, exact)} s"


def change(before: float, after: float) -> str:
    """In percent, with its sign."""
    if before == 0:
        return "from 0"
    share = 100 * (after / before - 1)
    sign = "+" if share > 0 else MINUS
    if math.isinf(share):
        return f"{sign}∞ %"
    if 0.1 <= abs(share) < 1e6:
        return f"{sign}{abs(share):.1f} %"
    return f"{sign}{number(float(f'{abs(share):.2g}'), 2)} %"


def _digits(value: float, exact: bool) -> str:
    return number(value, DIGITS[exact])
