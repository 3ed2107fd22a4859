import pytest

from reports.render import formats


def test_a_table_shows_a_value_and_its_interval_by_the_one_rule() -> None:
    assert formats.with_interval(1.84123, (1.7912, 1.9034)) == ("1.84", "[1.79, 1.90]")
    assert formats.with_interval(8.0, None) == ("8", "exact")
    assert formats.with_interval(2.0, (2.0, 2.0)) == ("2", "[2, 2]")


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
