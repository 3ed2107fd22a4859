import math

import pytest

from reports.render import formats


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (38_597_376, "38,597,376"),
        (0.030858, "0.03086"),
        (-0.25, "−0.25"),
        (1234.5678, "1,235"),
        (3.1e-15, "3.1 × 10⁻¹⁵"),
        (2.5e19, "2.5 × 10¹⁹"),
    ],
)
def test_numbers_have_four_digits_and_whole_ones_all(value: float, text: str) -> None:
    assert formats.number(value) == text


@pytest.mark.parametrize(
    ("value", "interval", "texts"),
    [
        (1.84123, (1.7912, 1.9034), ("1.841", "[1.791, 1.903]")),
        (0.0004, (0.0001, 0.0007), ("0.00040", "[0.00010, 0.00070]")),
        (-0.5001, (-0.512, -0.488), ("−0.500", "[−0.512, −0.488]")),
        (5234.0, (4000.0, 6500.0), ("5,234", "[4,000, 6,500]")),
        (3e-15, (2e-15, 4e-15), ("3.0 × 10⁻¹⁵", "[2.0 × 10⁻¹⁵, 4.0 × 10⁻¹⁵]")),
        (8.0, None, ("8", "exact")),
        (2.0, (2.0, 2.0), ("2", "[2, 2]")),
        (0.0, (0.0, 0.0), ("0", "[0, 0]")),
    ],
)
def test_digits_are_those_that_the_interval_justifies(
    value: float, interval: tuple[float, float] | None, texts: tuple[str, str]
) -> None:
    assert formats.with_interval(value, interval) == texts


def test_a_value_is_never_rounded_further_than_a_quarter_of_its_interval() -> None:
    for exponent in range(-12, 12):
        value, half = math.pi * 10.0**exponent, 0.03 * 10.0**exponent
        shown, _ = formats.with_interval(value, (value - half, value + half))
        digits = shown.replace(",", "").replace("−", "-")
        mantissa, _, power = digits.partition(" × 10")
        plain = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
        read = float(mantissa) * 10.0 ** int(power.translate(plain) or 0)
        assert abs(read - value) <= half / 4


def test_bytes_are_told_in_decimal_units() -> None:
    assert formats.byte_size(16_777_216_000) == "16.8 GB"
    assert formats.byte_size(999) == "999 bytes"


@pytest.mark.parametrize(
    ("source", "links"),
    [
        ("LoRA, arXiv:2106.09685", ["https://arxiv.org/abs/2106.09685"]),
        ("arXiv 2312.03732v2 and arXiv:2104.09864", 2),
        ("https://example.org/a, p. 3", ["https://example.org/a"]),
        ("javascript:alert(1)", []),
        ("GPT-2's published configuration", []),
    ],
)
def test_arxiv_numbers_and_addresses_become_links_and_nothing_else_does(
    source: str, links: list[str] | int
) -> None:
    pieces = formats.pieces(source)
    assert "".join(text for text, _ in pieces) == source
    addresses = [address for _, address in pieces if address]
    assert addresses == links if isinstance(links, list) else len(addresses) == links


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0.2, "less than a second"), (12.4, "12 s"), (290.0, "5 min")],
)
def test_durations_are_rounded_to_what_a_reader_needs(
    seconds: float | None, text: str | None
) -> None:
    assert formats.duration(seconds) == text


def test_a_date_that_cannot_be_read_is_shown_as_it_stands() -> None:
    assert formats.moment("2026-11-22T05:26:10+00:00") == "22 November 2026, 05:26 UTC"
    assert formats.moment("yesterday") == "yesterday"
