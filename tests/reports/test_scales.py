"""Log axes: what has no logarithm is drawn at the small end, in every chart, and a note says so."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any
from xml.etree import ElementTree

import pytest
import vl_convert

from reports.render.charts import CHARTS, panels
from reports.render.drawing import static_svg
from reports.render.marks import Panel, curve, dots

pytestmark = pytest.mark.K7

Made = dict[str, Any]


def made_up(value: float, low: float, high: float, **parameters: Any) -> Made:
    return {
        "metric": "metric",
        "unit": "1",
        "value": value,
        "interval": [low, high],
        "n": 5,
        "option": "any",
        "parameters": parameters,
    }


def falling(lowest: float) -> list[Made]:
    """1, 0.1, 0.01, 0.001 at 1, 2, 4, 8; the interval of the last begins at ``lowest``."""
    made = [made_up(10.0**-i, 0.9 * 10.0**-i, 1.1 * 10.0**-i, rank=2**i) for i in range(4)]
    made[-1]["interval"][0] = lowest
    return made


def layers(panel: Panel) -> Iterator[tuple[dict[str, Any], list[Made]]]:
    """The encoding and the data of each layer."""
    spec = panel.declared
    for layer in spec["layer"]:
        yield layer["encoding"], layer.get("data", spec.get("data"))["values"]


def log_domains(panel: Panel) -> dict[str, Any]:
    """Channel → the ends of its axis, None where they are the data's."""
    return {
        channel: encoded["scale"].get("domain")
        for encoding, _ in layers(panel)
        for channel, encoded in encoding.items()
        if channel in ("x", "y") and encoded.get("scale", {}).get("type") == "log"
    }


def numbers_on(panel: Panel, channel: str) -> list[float]:
    return [
        row[encoded["field"]]
        for encoding, rows in layers(panel)
        for name, encoded in encoding.items()
        if name in (channel, f"{channel}2")
        for row in rows
    ]


def interval_ends(panel: Panel, channel: str) -> tuple[float, float]:
    """Where on its axis the longest interval is drawn, in shares of the plot from its small end."""
    svg = ElementTree.fromstring(vl_convert.vegalite_to_svg(panel.declared))
    plot = next(e for e in svg.iter() if e.get("class") == "background")
    width, height = map(float, re.findall(r"h([\d.]+)v([\d.]+)", plot.get("d", ""))[0])
    found = []
    for mark in svg.iter():
        if mark.get("class", "").startswith("mark-rule") and "domain" not in mark.get("class", ""):
            for line in mark:
                at = re.match(r"translate\(([-\d.]+),([-\d.]+)\)", line.get("transform", ""))
                if at is None or float(line.get("stroke-width", 0)) != 2.2:
                    continue
                index, reach = (0, width) if channel == "x" else (1, height)
                start = float(at[index + 1])
                end = start + float(line.get(f"{channel}2", 0))
                shares = (start / reach, end / reach)
                found.append(shares if channel == "x" else tuple(1 - share for share in shares))
    low, high = max(found, key=lambda ends: abs(ends[0] - ends[1]))
    return min(low, high), max(low, high)


@pytest.mark.parametrize("lowest", [0.0, -1e-9, -5.0])
def test_an_interval_that_reaches_zero_is_drawn_down_to_the_small_end(lowest: float) -> None:
    vertical = curve("c", falling(lowest), "rank", x_title="", y_title="", log_x=True, log_y=True)
    level = dots("d", falling(lowest), x_title="", log_x=True)
    for panel, channel in ((vertical, "y"), (level, "x")):
        assert panel.note == "0 and less is drawn at a tenth of the smallest other number."
        low, high = interval_ends(panel, channel)
        assert 0 < low < 0.08 < high < 0.4  # from a ten-thousandth to a little over a thousandth


def test_an_interval_above_zero_is_drawn_as_long_as_it_is() -> None:
    for lowest in (9e-4, 1e-7):
        drawn = curve("c", falling(lowest), "rank", x_title="", y_title="", log_y=True)
        assert drawn.note == ""
        assert min(numbers_on(drawn, "y")) == lowest


def test_the_pointer_is_told_the_true_numbers_of_what_was_moved() -> None:
    made = [*falling(1e-4), made_up(0.0, -0.5, 0.5, rank=16)]
    panel = curve("c", made, "rank", x_title="", y_title="", log_y=True)
    moved = panel.declared["data"]["values"][-1]
    assert moved["text"] == "0.0"
    assert moved["value"] == moved["low"] == pytest.approx(1e-5)
    assert moved["interval"] == "[−0.5, 0.5]"


def test_nothing_above_zero_makes_a_plain_scale() -> None:
    made = [made_up(-(2.0**i), -(3.0**i), 0.0, rank=2**i) for i in range(4)]
    for panel in (
        curve("c", made, "rank", x_title="", y_title="", log_y=True),
        dots("d", made, x_title="", log_x=True, borders=[-1.0]),
    ):
        assert log_domains(panel) == {}
    assert "−1" in panel.note


def test_a_parameter_at_zero_makes_a_plain_scale() -> None:
    made = [{**m, "parameters": {"rank": rank}} for rank, m in enumerate(falling(1e-4))]
    panel = curve("c", made, "rank", x_title="", y_title="", log_x=True, log_y=True)
    assert set(log_domains(panel)) == {"y"}
    law = [{**m, "parameters": {"rank": 0}} for m in falling(1e-4)]
    panel = curve("c", falling(1e-4), "rank", x_title="", y_title="", log_x=True, dashed=law)
    assert log_domains(panel) == {}


def test_a_curve_shows_where_the_region_ends_on_its_axis_of_values() -> None:
    panel = curve("c", falling(1e-4), "rank", x_title="", y_title="", log_y=True, borders=[1e-6])
    assert panel.note == "Dashed: where the claim's region ends, 10⁻⁶."
    assert min(numbers_on(panel, "y")) == pytest.approx(1e-6)
    below = curve("c", falling(1e-4), "rank", x_title="", y_title="", log_y=True, borders=[-1.0])
    assert below.note == ""


def test_ticks_at_tested_values_have_three_digits_and_whole_ones_all() -> None:
    tested = (2.25, 5.479549588300409, 16384)
    made = [made_up(1.0, 0.5, 1.5, bits=bits) for bits in tested]
    drawn = static_svg(curve("c", made, "bits", x_title="", y_title="", log_x=True), "c", 640)
    assert [f">{tick}<" in drawn for tick in ("2.25", "5.48", "16,384")] == [True] * 3


def test_a_law_at_zero_is_moved_too() -> None:
    law = [{**m, "value": 0.0, "interval": None} for m in falling(1e-4)]
    panel = curve("c", falling(1e-4), "rank", x_title="", y_title="", log_y=True, dashed=law)
    assert min(numbers_on(panel, "y")) == pytest.approx(1e-5)
    assert panel.note.startswith("Dashed: what the law predicts. 0 and less is drawn")


def test_a_zero_lies_below_a_border_that_is_smaller_than_all_else() -> None:
    made = [made_up(0.0, 0.0, 0.0, rank=1), made_up(3.0, 2.0, 4.0, rank=2)]
    alone = dots("d", made, x_title="", log_x=True)
    beside = dots("d", made, x_title="", log_x=True, borders=[1e-5, -1.0])
    assert min(numbers_on(alone, "x")) == pytest.approx(0.2)
    assert min(numbers_on(beside, "x")) == pytest.approx(1e-6)
    assert beside.note.startswith("Dashed: where the claim's region ends, 10⁻⁵. 0 and less")


@pytest.mark.parametrize(("least", "most"), [(5e-324, 1.0), (1.0, 1.7e308), (5e-324, 1.7e308)])
def test_the_smallest_and_the_largest_floats_have_an_axis(least: float, most: float) -> None:
    made = [made_up(least, least, least, rank=1), made_up(most, most, most, rank=2)]
    panel = curve("c", made, "rank", x_title="", y_title="", log_y=True)
    low, high = log_domains(panel)["y"]
    assert 0 < low < high < float("inf")
    vl_convert.vegalite_to_svg(panel.declared)


def with_intervals_to_zero(m: Made, index: int) -> Made:
    return {**m, "interval": [(0.0, -1e3)[index % 2], 1e3 + abs(m["value"])], "n": 3}


def with_values_at_zero(m: Made, index: int) -> Made:
    values = (0.0, -1.0 - abs(m["value"]), m["value"])
    return {**m, "value": values[index % 3], "interval": None, "n": None}


def at_zero(m: Made, index: int) -> Made:
    return {**m, "value": 0.0, "interval": None, "n": None}


@pytest.mark.parametrize(
    ("claim", "damage"),
    [
        *product(sorted(CHARTS), [with_intervals_to_zero, with_values_at_zero]),
        ("cache.memory-bound", at_zero),  # whose roof is a ratio of two measurements
    ],
)
def test_every_chart_of_a_claim_draws_within_its_log_axes(
    results: dict[str, Any], claim: str, damage: Callable[[Made, int], Made]
) -> None:
    entry = next(each for each in results["claims"] if each["id"] == claim)
    own = [m for m in results["measurements"] if m["claim"] == claim]
    for panel in panels(entry, [damage(m, index) for index, m in enumerate(own)]):
        for channel, domain in log_domains(panel).items():
            drawn = numbers_on(panel, channel)
            assert min(drawn) > 0
            if domain is not None and "Dashed" not in panel.note:  # a law may lie far off
                assert domain[0] <= min(drawn) <= max(drawn) <= domain[1]
