"""What stands above charts, in words that are computed."""

from reports.render.reach import reach
from reports.render.scales import Row


def row(value: float, text: str, name: str, **more: object) -> Row:
    return {"value": value, "text": text, "name": name, "unit": "nats/token", **more}


def test_a_title_tells_the_lowest_and_the_highest_with_their_cases_and_unit() -> None:
    rows = [row(1.43, "1.43", "rank 4"), row(1.4, "1.40", "rank\n256"), row(1.41, "1.41", "rank 8")]
    assert reach(rows) == "lowest 1.40 (rank 256), highest 1.43 nats a token (rank 4)"


def test_a_curve_names_the_place_on_its_axis() -> None:
    rows = [row(2, "2", "α/r", x=1024.0), row(3, "3", "", x=0.00025)]
    told = reach(rows, "learning rate (1/step)")
    assert (
        told
        == "lowest 2 (α/r, learning rate 1,024), highest 3 nats a token (learning rate 0.00025)"
    )


def test_numbers_that_read_alike_are_told_once() -> None:
    rows = [row(0.9961, "99.6 %", "a"), row(0.9962, "99.6 %", "b")]
    assert reach(rows) == "99.6 % in each of 2 cases"


def test_long_names_are_left_to_the_chart() -> None:
    rows = [row(1, "1", "a" * 40, unit="1/D"), row(2, "2", "b" * 40, unit="1/D")]
    assert reach(rows) == "lowest 1, highest 2"


def test_a_single_number_has_no_reach() -> None:
    assert reach([row(1, "1", "a")]) == ""
