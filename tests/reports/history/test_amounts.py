"""Values as the history writes them."""

from __future__ import annotations

import pytest

from reports.history.amounts import amount, change, rounded


@pytest.mark.parametrize(
    ("value", "unit", "exact", "written"),
    [
        (1.3e-3, "seconds", False, "1.3 ms"),
        (0.00123456, "s", False, "1.235 ms"),
        (0.00099999, "seconds", False, "1 ms"),
        (4.5e-5, "seconds", False, "45 µs"),
        (2.5e-9, "seconds", False, "2.5 ns"),
        (2.5e-14, "seconds", False, "2.5 × 10⁻⁵ ns"),
        (12345.6, "seconds", False, "12,346 s"),
        (0.0, "seconds", False, "0 s"),
        (-0.25, "seconds", False, "−250 ms"),
        (1234.56, "bytes", False, "1,235"),
        (123456789.0, "bytes", False, "123,456,789"),
        (1234567890.0, "bytes", True, "1,234,567,890"),
        (12345678901.4, "bytes", True, "12,345,678,901"),
        (4.604170187, "nats", True, "4.604170187"),
        (0.5, "share", False, "0.5"),
        (1.5e-7, "nats", True, "1.5 × 10⁻⁷"),
        (1e300, "bytes", False, "10³⁰⁰"),
        (0.0, "", True, "0"),
    ],
)
def test_counts_are_written_in_full_and_times_to_four_digits_with_their_unit(
    value: float, unit: str, exact: bool, written: str
) -> None:
    assert amount(value, unit, exact) == written
    assert amount(rounded(value, exact), unit, exact) == written


@pytest.mark.parametrize(
    ("before", "after", "written"),
    [
        (1.0, 1.3, "+30.0 %"),
        (100, 99.97, "−0.03 %"),
        (0, 5, "from 0"),
        (1e-300, 1e300, "+∞ %"),
        (1, 1e9, "+100,000,000,000 %"),
    ],
)
def test_a_change_is_written_in_percent(before: float, after: float, written: str) -> None:
    assert change(before, after) == written
