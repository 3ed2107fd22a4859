"""One rule for all numbers: as many digits as their interval supports."""

from __future__ import annotations

import math

import pytest

from benchmarks.judging.rounding import MINUS, figures, in_full, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (38_597_376, "38,597,376"),
        (0.030858, "0.0309"),
        (-0.25, "−0.25"),
        (1234.5678, "1,235"),
        (3.1e-15, "3.1 × 10⁻¹⁵"),
        (1e-10, "10⁻¹⁰"),
        (2.5e19, "2.5 × 10¹⁹"),
        (5e-324, "4.94 × 10⁻³²⁴"),
    ],
)
def test_exact_numbers_have_three_digits_and_whole_ones_all(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "interval", "texts"),
    [
        (1.84123, (1.7912, 1.9034), ("1.84", "1.79–1.90")),
        (0.0004, (0.0001, 0.0007), ("0.0004", "0.0001–0.0007")),
        (-0.5001, (-0.512, -0.488), ("−0.500", "−0.512 to −0.488")),
        (5234.0, (4000.0, 6500.0), ("5,200", "4,000–6,500")),
        (23456.7, (23111.1, 23802.3), ("23,500", "23,100–23,800")),
        (3e-15, (2e-15, 4e-15), ("3.0 × 10⁻¹⁵", "2.0 × 10⁻¹⁵ to 4.0 × 10⁻¹⁵")),
        (1.234e-7, (1.204e-7, 1.264e-7), ("1.23 × 10⁻⁷", "1.20 × 10⁻⁷ to 1.26 × 10⁻⁷")),
        (-0.004, (-0.304, 0.296), ("0.0", "−0.3 to 0.3")),
        (-7e-6, (-8e-5, 7e-5), ("−10⁻⁵", "−8 × 10⁻⁵ to 7 × 10⁻⁵")),
        (2.0, (2.0, 2.0), ("2", "")),
        (0.0, (0.0, 0.0), ("0", "")),
        (1e300, (-1e308, 1e308), ("0", "−1.0 × 10³⁰⁸ to 1.0 × 10³⁰⁸")),
    ],
)
def test_digits_are_those_that_the_interval_supports(
    value: float, interval: tuple[float, float], texts: tuple[str, str]
) -> None:
    told = figures(value, interval)
    assert (told.value, told.interval) == texts


def test_a_value_is_never_rounded_further_than_a_quarter_of_its_interval() -> None:
    plain = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    for exponent in range(-12, 12):
        for width in (0.03, 0.0199, 0.0101, 0.099):
            value, half = math.pi * 10.0**exponent, width * 10.0**exponent
            told = figures(value, (value - half, value + half))
            digits = told.value.replace(",", "").replace(MINUS, "-")
            mantissa, _, power = digits.partition(" × 10")
            read = float(mantissa) * 10.0 ** int(power.translate(plain) or 0)
            assert abs(read - value) <= half / 3.99


def test_no_number_is_rounded_over_a_border_that_is_named() -> None:
    assert number(0.0200004, side=lambda x: x <= 0.02) == "0.0200004"
    told = figures(1.6004, (1.6001, 1.6007), side=lambda x: x > 1.6)
    assert (told.value, told.interval) == ("1.6004", "1.6001–1.6007")
    assert figures(1.604, (1.601, 1.609), side=lambda x: x > 1.6).interval == "1.601–1.609"


def test_a_border_keeps_the_digits_that_it_was_given() -> None:
    assert in_full(0.995) == "0.995"
    assert in_full(1.005) == "1.005"
    assert in_full(100 * 0.005) == "0.5"
