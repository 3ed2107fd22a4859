import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import altair as alt
import pytest
import vl_convert

from benchmarks.judging.claims import load_claims
from reports.render.charts import CHARTS, TABLE_IS_ENOUGH, panels
from reports.render.drawing import static_svg
from reports.render.marks import Panel
from reports.render.slim import slimmed

Measurements = list[dict[str, Any]]


def claim_of(results: dict[str, Any], claim: str) -> dict[str, Any]:
    return next(entry for entry in results["claims"] if entry["id"] == claim)


def of_claim(results: dict[str, Any], claim: str) -> Measurements:
    return [m for m in results["measurements"] if m["claim"] == claim]


def draw(results: dict[str, Any], claim: str) -> list[Panel]:
    return panels(claim_of(results, claim), of_claim(results, claim))


def drawn_rows(panel: Panel) -> list[dict[str, Any]]:
    """Every row of data in a chart, once."""
    spec = panel.chart.to_dict()
    found = [spec["data"]["values"]] if "data" in spec else []
    found += [layer["data"]["values"] for layer in spec["layer"] if "data" in layer]
    return [row for values in found for row in values]


def made_up(metric: str = "metric", *, count: int = 3, **fields: Any) -> Measurements:
    return [
        {
            "claim": "any.claim",
            "metric": metric,
            "unit": "1",
            "value": 1.0 + index,
            "interval": [0.9 + index, 1.1 + index],
            "n": 5,
            "direction": "none",
            "choice": "any",
            "option": f"option {index}",
            "parameters": {},
            "source": "simulation",
            **fields,
        }
        for index in range(count)
    ]


def any_claim(metric: str = "metric", claim: str = "any.claim") -> dict[str, Any]:
    return {"id": claim, "requirements": [{"metric": metric, "region": {"equals": 0}}]}


@pytest.mark.parametrize("claim", sorted(CHARTS))
def test_each_chosen_chart_draws_the_measurements_of_its_claim(
    results: dict[str, Any], claim: str
) -> None:
    drawn = draw(results, claim)
    assert drawn
    values = {m["value"] for m in of_claim(results, claim)}
    for panel in drawn:
        assert panel.declared == panel.chart.to_dict()  # which checks it against Vega-Lite
        rows = [row for row in drawn_rows(panel) if "unit" in row]
        assert rows
        assert {row["value"] for row in rows} & values


def test_charts_are_chosen_only_for_claims_that_exist() -> None:
    assert set(CHARTS) | TABLE_IS_ENOUGH <= {claim.id for claim in load_claims()}


def test_a_dot_carries_its_interval_and_the_pointer_is_told_it(results: dict[str, Any]) -> None:
    (panel,) = draw(results, "int8.weights-quality")
    row = next(row for row in drawn_rows(panel) if row.get("name") == "per channel")
    assert (row["low"], row["high"]) == pytest.approx((0.0001, 0.0007))
    assert row["interval"] == "[0.0001, 0.0007]"
    assert row["n"] == "120"


def test_the_border_of_the_region_is_drawn_where_the_claim_puts_it(results: dict[str, Any]) -> None:
    (panel,) = draw(results, "int8.weights-quality")
    assert 0.002 in [row["value"] for row in drawn_rows(panel)]
    assert "0.002" in panel.note


def test_no_border_is_drawn_where_requirements_disagree_about_it() -> None:
    claim = {
        "id": "any.claim",
        "requirements": [
            {"metric": "metric", "region": {"at_most": 1.5}},
            {"metric": "metric", "region": {"at_least": 2.5}},
        ],
    }
    (panel,) = panels(claim, made_up())
    assert panel.note == ""
    assert len(drawn_rows(panel)) == 3


def test_the_law_of_the_product_is_drawn_beside_what_was_measured(results: dict[str, Any]) -> None:
    (panel,) = draw(results, "lora.product-variance")
    assert "law" in panel.note
    law = [row["value"] for row in drawn_rows(panel) if row["interval"] == "exact"]
    assert law == pytest.approx([2**i for i in range(11)])


def test_an_exact_zero_has_a_place_on_a_log_scale_and_shows_its_true_value(
    results: dict[str, Any],
) -> None:
    measurements = of_claim(results, "position.relative")
    measurements = [{**m, "value": 0.0} if m["option"] == "rope" else m for m in measurements]
    (panel,) = panels(claim_of(results, "position.relative"), measurements)
    row = next(row for row in drawn_rows(panel) if row.get("name") == "rope")
    assert row["value"] > 0
    assert row["text"] == "0"


def test_gradients_under_the_theorems_initialization_and_under_others_are_drawn_on_one_scale(
    results: dict[str, Any],
) -> None:
    theory, others, *_ = draw(results, "norm.gradient-profile")
    assert theory.series == ("pre", "post")
    assert others.series == ("pre · gpt2", "post · gpt2", "deepnorm · deepnorm")
    scales = [p.chart.to_dict()["layer"][1]["encoding"]["y"]["scale"] for p in (theory, others)]
    assert scales[0] == scales[1]


def test_gradients_are_drawn_with_the_width_and_the_initialization_they_were_measured_at(
    results: dict[str, Any],
) -> None:
    assert [panel.title for panel in draw(results, "norm.gradient-profile")] == [
        "gradient norm by layer, 768 wide, Xavier's initialisation",
        "gradient norm by layer, 768 wide, GPT-2's and DeepNorm's initialisation",
        "last layer's gradient, 128 wide, Xavier's initialisation",
        "last layer's gradient, 128 wide, GPT-2's and DeepNorm's initialisation",
        "first layer's gradient over the last layer's, 768 wide",
    ]


def test_speed_is_drawn_against_the_length_and_the_border_only_where_the_claim_speaks(
    results: dict[str, Any],
) -> None:
    rates, ratios, claimed, seconds = draw(results, "cache.fifteen-tokens")
    assert rates.title == "tokens per second, after a prompt of 128"
    assert rates.series == ("cached", "uncached")
    assert sorted(row["x"] for row in drawn_rows(ratios)) == [4, 8, 16, 32, 64]
    assert [panel.note != "" for panel in (rates, ratios, claimed, seconds)] == [0, 0, 1, 0]
    assert {row["value"] for row in drawn_rows(claimed) if "unit" in row} == {1.74}
    assert {row["value"] for row in drawn_rows(seconds)} == {1.1, 1.9}


@pytest.mark.parametrize(("scale", "format_"), [(1.0, "~g"), (1e6, "~s")])
def test_fractions_of_a_second_are_not_written_as_minutes(
    results: dict[str, Any], scale: float, format_: str
) -> None:
    own = of_claim(results, "cache.fifteen-tokens")
    own = [{**m, "value": m["value"] * scale, "interval": None} for m in own]
    *_, seconds = panels(claim_of(results, "cache.fifteen-tokens"), own)
    bars = seconds.chart.to_dict()["layer"][0]["encoding"]["x"]["axis"]
    assert bars["format"] == format_


def test_results_with_15_tokens_alone_are_drawn_without_a_length(results: dict[str, Any]) -> None:
    own = of_claim(results, "cache.fifteen-tokens")
    short = [m for m in own if m["parameters"]["new_tokens"] == 15]
    titles = [panel.title for panel in panels(claim_of(results, "cache.fifteen-tokens"), short)]
    assert titles == ["speed-up by the cache over 15 tokens", "seconds to generate 15 tokens"]


def test_counted_work_is_one_chart_of_projections_and_attention_with_and_without(
    results: dict[str, Any],
) -> None:
    (panel,) = draw(results, "cache.complexity")
    assert len(panel.series) == 4
    scales = [panel.chart.to_dict()["layer"][2]["encoding"][axis]["scale"] for axis in "xy"]
    assert [scale["type"] for scale in scales] == ["log", "log"]


def test_formats_stand_by_all_their_bits_and_what_none_beats_is_joined(
    results: dict[str, Any],
) -> None:
    (panel,) = draw(results, "turboquant.best-at-three")
    line, points, _ = (layer["data"]["values"] for layer in panel.chart.to_dict()["layer"])
    own = [row for row in points if row["name"] == "KVarN"]
    assert [row["x"] for row in own] == [7.25, 8.25, 9.25]
    assert own[0]["of"] == "KVarN, signs, 2 bits"
    assert [row["x"] for row in line] == [2.25, 3.25, 4.25]
    assert {row["name"] for row in line} == {"E8"}
    assert "E8 in a box, 3 bits" in panel.note
    assert "KVarN" not in panel.note
    assert panel.series == ("TurboQuant", "E8", "KVarN")


def test_the_roof_rises_with_the_bandwidth_until_arithmetic_cuts_it_off(
    results: dict[str, Any],
) -> None:
    roofline, *_ = draw(results, "cache.memory-bound")
    roof = [(row["x"], row["value"]) for row in drawn_rows(roofline) if row["name"] == "roof"]
    assert roof == [(0.5, 0.5 * 5e10), (4.0, 2e11), (190.0, 2e11)]
    assert roofline.note == ("Dashed: the most that the measured bandwidth and arithmetic allow.")
    steps = {row["name"]: row["x"] for row in drawn_rows(roofline) if row["name"] != "roof"}
    assert steps == {
        "decode, batch size 1": 0.5,
        "decode, batch size 4": 1.9,
        "decode, batch size 16": 6.2,
        "prefill, 128 tokens": 45,
        "prefill, 512 tokens": 190,
    }


def test_the_parts_of_a_step_and_its_speed_stand_beside_the_roof(results: dict[str, Any]) -> None:
    _, parts, rates = draw(results, "cache.memory-bound")
    shares = {row["name"]: row["text"] for row in drawn_rows(parts) if "unit" in row}
    assert shares == {
        "reading: between the\nnext two": "78 %",
        "read at full bandwidth": "62.0 %",
        "inside operators that\nread": "94.0 %",
        "compute at full rate": "6.0 %",
    }
    assert "60 %" in parts.note
    assert [row["name"] for row in drawn_rows(rates)][:2] == [
        "measured · batch size 1",
        "limit · batch size 1",
    ]


def test_unknown_metrics_that_were_measured_twice_are_drawn_as_dots() -> None:
    (panel,) = panels(any_claim("new_metric"), made_up("new_metric"))
    assert panel.title == "new metric"
    assert [row["name"] for row in drawn_rows(panel)] == ["option 0", "option 1", "option 2"]


def test_what_no_requirement_speaks_of_is_left_to_the_table() -> None:
    assert panels(any_claim("another_metric"), made_up("new_metric")) == []


def test_a_number_that_was_varied_becomes_the_axis_of_a_curve() -> None:
    measurements = [
        {**m, "option": "one", "parameters": {"length": 64 * 2**i}}
        for i, m in enumerate(made_up(count=5))
    ]
    (panel,) = panels(any_claim(), measurements)
    assert sorted(row["x"] for row in drawn_rows(panel)) == [64, 128, 256, 512, 1024]


@pytest.mark.parametrize("measurements", [[], made_up(count=1), made_up(value=2.0)])
def test_nothing_is_drawn_where_there_is_nothing_to_compare(measurements: Measurements) -> None:
    assert panels(any_claim(), measurements) == []


@pytest.mark.parametrize("claim", sorted(CHARTS))
def test_a_chosen_chart_whose_metrics_are_missing_falls_back_or_stays_away(claim: str) -> None:
    entry = any_claim("other", claim)
    assert panels(entry, made_up(count=1)) == []
    assert [panel.title for panel in panels(entry, made_up("other"))] == ["other"]


def test_more_series_than_colours_are_split_over_panels() -> None:
    measurements = [
        {**m, "option": f"option {i % 2}", "parameters": {"kind": f"kind {kind}", "rank": 2**i}}
        for kind in range(4)
        for i, m in enumerate(made_up(count=8))
    ]
    drawn = panels(any_claim(), measurements)
    assert [panel.title for panel in drawn] == ["metric, option 0", "metric, option 1"]
    assert all(len(panel.series) == 4 for panel in drawn)


def test_colours_follow_the_page_and_shapes_tell_series_apart_without_them(
    results: dict[str, Any],
) -> None:
    panel = draw(results, "norm.gradient-profile")[1]
    svg = static_svg(panel, "name", 500)
    assert 'fill="currentColor"' in svg
    assert {fill for tag, fill in painted(svg) if tag == "text"} == {"currentColor"}
    assert {"var(--series-1)", "var(--series-2)"} <= {colour for _, colour, _ in panel.legend}
    assert len({path for _, _, path in panel.legend}) == 3


def painted(svg: str) -> list[tuple[str, str | None]]:
    """(tag, fill) of each element, the fill perhaps that of a group around it."""

    def below(element: ElementTree.Element, fill: str | None) -> Iterator[tuple[str, str | None]]:
        fill = element.get("fill", fill)
        yield element.tag.rpartition("}")[2], fill
        for child in element:
            yield from below(child, fill)

    return list(below(ElementTree.fromstring(svg), None))


def test_a_slimmed_drawing_has_every_text_and_every_mark_in_its_colour(
    results: dict[str, Any],
) -> None:
    (panel,) = draw(results, "lora.product-variance")
    whole = vl_convert.vegalite_to_svg(panel.chart.to_dict())
    slim = slimmed(whole, panel.title)
    assert len(slim) < len(whole) / 2
    texts = [list(ElementTree.fromstring(svg).itertext()) for svg in (whole, slim)]
    assert texts[0] == texts[1]
    for tag in ("text", "line"):
        assert [p for p in painted(slim) if p[0] == tag] == [
            p for p in painted(whole) if p[0] == tag
        ]
    coloured = [[p for p in painted(svg) if p[1] == "var(--series-1)"] for svg in (whole, slim)]
    assert len(coloured[1]) >= 11
    assert [p for p in coloured[1] if p[0] == "path"] == [p for p in coloured[0] if p[0] == "path"]
    assert f'role="img" aria-label="{panel.title}"' in slim


def test_ids_inside_a_drawing_carry_its_name() -> None:
    points = alt.Chart(alt.Data(values=[{"x": 1}])).mark_point(clip=True).encode(x="x:Q")
    svg = static_svg(Panel("clipped", alt.layer(points)), "name", 500)
    assert re.findall(r' id="(\w+)', svg) == re.findall(r"url\(#(\w+)", svg) == ["name"]
