"""The one rule by which numbers are rounded: README, tables, page, charts and findings follow it.

A number with an interval has as many digits as the interval supports: two of its half-width where
that begins with a 1, one otherwise. An exact number has three, a whole one all of them. Where that
would carry a number over a border, or say that it lies on one, it keeps more digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

EXACT_DIGITS, SETTING_DIGITS = 3, 4
MOST_SUPPORTED, MOST_DIGITS = 8, 12  # by an interval; to stay on one side of a border
SMALLEST, LARGEST = 1e-4, 1e7  # what is beyond is written with a power of ten
MINUS = "\N{MINUS SIGN}"
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Side = Callable[[float], object]  # what must be of a rounded number as it was of the number


class Figures(NamedTuple):
    """A value and the ends of its interval as texts; no ends where the value is exact."""

    value: str
    low: str | None = None
    high: str | None = None

    @property
    def interval(self) -> str:
        """Both ends, "1.33–1.40", or "−0.2 to 0.3" where a dash would be taken for a sign."""
        if self.low is None or self.high is None or self.low == self.high:
            return ""
        apart = " to " if MINUS in self.low + self.high or "×" in self.low + self.high else "–"
        return f"{self.low}{apart}{self.high}"


def figures(
    value: float, interval: tuple[float, float] | None = None, side: Side | None = None
) -> Figures:
    """``value`` and ``interval`` to the digits that the interval supports.

    ``side`` tells on which side of a border a number lies: rounding leaves each on its own.
    """
    if interval is None:
        return Figures(number(value, side=side))
    low, high = interval
    half = high / 2 - low / 2  # the difference itself may be too large for a float
    if half <= 0:
        return Figures(*(number(each, side=side) for each in (value, low, high)))
    first, _, power = f"{half:.9e}".partition("e")
    places = (1 if first < "2" else 0) - int(power)
    places = min(places, MOST_SUPPORTED - 1 - _magnitude(max(map(abs, (value, low, high)))))
    numbers = (value, low, high)
    for more in range(MOST_DIGITS):
        rounded = [_round(each, places + more) for each in numbers]
        if side is None or all(side(a) == side(b) for a, b in zip(numbers, rounded, strict=True)):
            places += more
            break
    return Figures(*_written(numbers, places))


def number(value: float, digits: int = EXACT_DIGITS, side: Side | None = None) -> str:
    """``value`` to ``digits`` significant ones; whole numbers in full, with separators."""
    if value == 0:
        return "0"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}".replace("-", MINUS)
    for more in range(digits, digits + MOST_DIGITS) if side else ():
        if side and side(float(f"{value:.{more - 1}e}")) == side(value):
            digits = more
            break
    magnitude = _magnitude(value)
    if not SMALLEST <= abs(value) < max(LARGEST, 10.0**digits):
        return _scientific(value, digits, trim=True)
    return _trimmed(f"{value:,.{max(0, digits - 1 - magnitude)}f}").replace("-", MINUS)


def to_digits(value: float, digits: int) -> float:
    """The number itself with ``digits`` significant ones, and all of those before the point."""
    return float(round(value)) if abs(value) >= 10**digits else float(f"{value:.{digits}g}")


def setting(value: float) -> str:
    """A number that tells cases apart, such as a learning rate: four digits."""
    return number(value, SETTING_DIGITS)


def in_full(value: float) -> str:
    """A number that somebody chose, such as a border: all digits that it was given."""
    return number(value, MOST_DIGITS)


def _written(numbers: tuple[float, ...], places: int) -> list[str]:
    """All with the same last place: decimals, or one power of ten each."""
    largest = max(map(abs, numbers))
    numbers = tuple(_round(x, places) for x in numbers)
    if SMALLEST <= largest < LARGEST:
        return [f"{x:,.{max(0, places)}f}".replace("-", MINUS) for x in numbers]
    kept = (max(1, min(MOST_DIGITS, _magnitude(x) + places + 1)) if x else 1 for x in numbers)
    return [_scientific(x, digits) for x, digits in zip(numbers, kept, strict=True)]


def _scientific(value: float, digits: int, trim: bool = False) -> str:
    """``digits`` significant ones, all of them shown unless ``trim``: 3.0 × 10⁻¹⁵."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    mantissa = (_trimmed(mantissa) if trim else mantissa).replace("-", MINUS)
    if int(exponent) == 0:
        return mantissa
    if mantissa in ("1", f"{MINUS}1"):
        return f"{mantissa[:-1]}{power}"
    return f"{mantissa} × {power}"


def _round(value: float, places: int) -> float:
    return round(value, min(places, 330)) + 0.0  # no minus before a zero


def _magnitude(value: float) -> int:
    """The power of ten of the first digit; from its text, as a logarithm can be one off."""
    return int(f"{value:.16e}".partition("e")[2])


def _trimmed(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
