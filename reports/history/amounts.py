"""How values are written, and rounded before the page stores them: history.js writes them alike."""

from __future__ import annotations

DIGITS = {True: 10, False: 4}  # exact: a difference of one is to be seen; noisy
PREFIXES = ((1e-6, 1e9, "ns"), (1e-3, 1e6, "µs"), (1.0, 1e3, "ms"))  # below, times, written
SECONDS = ("s", "seconds")
SMALLEST, LARGEST = 1e-4, 1e15  # what is beyond is written with an exponent


def rounded(value: float, exact: bool) -> float:
    """To the digits that are shown; all of those before the point are kept."""
    digits = DIGITS[exact]
    return float(round(value)) if abs(value) >= 10**digits else float(f"{value:.{digits}g}")


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
    return f"{share:+.1f} %" if 0.1 <= abs(share) < 1e6 else f"{share:+.2g} %"


def _digits(value: float, exact: bool) -> str:
    if value and not SMALLEST <= abs(value) < LARGEST:
        number, exponent = f"{value:.{DIGITS[exact] - 1}e}".split("e")
        return f"{_without_zeros(number)}e{int(exponent)}"
    return _without_zeros(f"{value:,.{_decimals(value, exact)}f}")


def _decimals(value: float, exact: bool) -> int:
    exponent = int(f"{value:.16e}".partition("e")[2])
    return max(0, DIGITS[exact] - 1 - exponent) if value else 0


def _without_zeros(number: str) -> str:
    return number.rstrip("0").rstrip(".") if "." in number else number
