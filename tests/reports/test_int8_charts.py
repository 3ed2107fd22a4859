"""L6's charts of made-up measurements: every cell, every layer, and the colours of the page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reports.render.drawing import static_svg
from reports.render.int8_charts import (
    DARKEST,
    LIGHTEST,
    activation_range,
    factorial,
    heat_map,
    sensitivity,
)
from reports.render.marks import Panel

Made = dict[str, Any]
CLAIM: Made = {"id": "any", "requirements": []}
KINDS = ("embedding", "qkv", "attention projection", "MLP in", "MLP out", "norms", "head")
GRIDS = ("INT8 per channel", "INT4 per group")


def made_up(metric: str, value: float, option: str, **parameters: Any) -> Made:
    return {
        "claim": "any",
        "metric": metric,
        "unit": "nats/token",
        "value": value,
        "interval": [value - 0.001, value + 0.001],
        "n": 20,
        "direction": "lower",
        "choice": "number format",
        "option": option,
        "parameters": parameters,
        "source": "checkpoint",
    }


def sensitivities() -> list[Made]:
    made = []
    for grid_index, grid in enumerate(GRIDS):
        for index, kind in enumerate(KINDS):
            value = 1e-4 * (index - 1) * 10**grid_index  # one kind below zero, one at it
            made.append(made_up("loss_increase", value, grid, kind=kind))
            made.append(made_up("loss_per_megabyte", value / 3, grid, kind=kind))
        made.append(made_up("sensitivity_ratio", 20.0 + grid_index, grid))
    for layer in range(6):
        made.append(made_up("layer_loss_increase", 0.001 * (layer + 1), GRIDS[1], layer=layer))
        for kind in KINDS[1:6]:
            value = 0.0001 * (layer + 1)
            made.append(made_up("map_loss_increase", value, GRIDS[1], layer=layer, kind=kind))
    return made


def activations() -> list[Made]:
    made = []
    for model in ("checkpoint", "planted outliers"):
        for layer in range(6):
            for kind in KINDS[1:5]:
                labels = {"model": model, "layer": layer, "kind": kind}
                for metric in ("activation_range", "outlier_share", "kurtosis"):
                    made.append(made_up(metric, 5.0 + layer, "float32", **labels))
    for metric, model, option, value in (
        ("gradient_cosine", "checkpoint", "W8A8", 0.9995),
        ("gradient_cosine_int4", "checkpoint", "W4A8", 0.96),
        ("gradient_cosine_planted", "planted outliers", "W8A8", 0.4),
    ):
        for layer in range(6):
            made.append(made_up(metric, value + 0.00001 * layer, option, model=model, layer=layer))
    return made


def data_of(panel: Panel) -> list[Made]:
    return list(panel.chart.to_dict()["data"]["values"])


def titled(panels: list[Panel], part: str) -> Panel:
    (found,) = (panel for panel in panels if part in panel.title)
    return found


def test_the_heat_map_has_a_cell_with_its_value_for_each_kind_and_grid() -> None:
    cells = data_of(titled(sensitivity(sensitivities(), CLAIM), "per megabyte saved"))
    assert {(cell["down"], cell["across"]) for cell in cells} == {
        (kind, grid) for kind in KINDS for grid in GRIDS
    }
    (qkv,) = (c for c in cells if c["down"] == "MLP in" and c["across"] == GRIDS[0])
    assert qkv["cell"] == "0.067"  # 2e-4 / 3, in thousandths


def test_the_largest_cell_is_the_strongest_and_what_is_not_above_zero_the_lightest() -> None:
    cells = data_of(titled(sensitivity(sensitivities(), CLAIM), "per megabyte saved"))
    strongest = max(cells, key=lambda cell: cell["value"])
    assert strongest["shade"] == pytest.approx(DARKEST)
    assert {c["shade"] for c in cells if c["value"] <= 0} == {LIGHTEST}
    by_value = sorted(cells, key=lambda cell: cell["value"])
    assert [c["shade"] for c in by_value] == sorted(c["shade"] for c in cells)


def test_layers_are_drawn_against_kinds_only_where_they_were_measured() -> None:
    whole = sensitivity(sensitivities(), CLAIM)
    assert len(data_of(titled(whole, "one kind in one layer"))) == 6 * 5
    without = [m for m in sensitivities() if not m["metric"].startswith("map_")]
    assert [p.title for p in sensitivity(without, CLAIM)] == [
        p.title for p in whole if "one kind in one layer" not in p.title
    ]


def test_the_ratio_is_drawn_with_the_border_of_the_region_also_where_it_has_no_logarithm() -> None:
    claim = {
        "id": "any",
        "requirements": [{"metric": "sensitivity_ratio", "region": {"at_least": 10}}],
    }
    assert "10" in titled(sensitivity(sensitivities(), claim), "least sensitive").note
    below = [
        {**m, "value": -4.0} if m["metric"] == "sensitivity_ratio" else m for m in sensitivities()
    ]
    panel = titled(sensitivity(below, claim), "least sensitive")
    assert panel.note.startswith("Dashed: where the claim's region ends, 10. 0 and less is drawn")


def test_cosines_are_drawn_by_layer_apart_for_planted_outliers() -> None:
    claim = {
        "id": "any",
        "requirements": [{"metric": "gradient_cosine", "region": {"at_most": 0.99}}],
    }
    as_it_is, planted, *_ = activation_range(activations(), claim)
    assert as_it_is.series == ("W8A8", "W4A8")
    assert "planted" in planted.title
    assert "region" in as_it_is.note
    assert 0.99 in [row["value"] for row in all_rows(as_it_is)]


def all_rows(panel: Panel) -> list[Made]:
    layers = panel.chart.to_dict()["layer"]
    return [row for layer in layers if "data" in layer for row in layer["data"]["values"]]


def test_ranges_of_each_model_have_a_map_of_their_own() -> None:
    panels = activation_range(activations(), CLAIM)
    maps = [p for p in panels if "largest input" in p.title]
    assert [p.title.rsplit(", ", 1)[1] for p in maps] == ["checkpoint", "planted outliers"]
    assert all(len(data_of(panel)) == 6 * 4 for panel in maps)


def test_the_factorial_shows_each_pair_and_what_neither_half_explains() -> None:
    pairs = [("float32 weights", "3 bits"), ("INT8", "uncompressed"), ("INT8", "3 bits")]
    made = [made_up("factorial_loss_increase", 0.01, w, cache=c) for w, c in pairs]
    made += [made_up("interaction", 0.0002, "INT8", cache=f"{bits} bits") for bits in (2, 3)]
    increases, interactions = factorial(made, CLAIM)
    assert {row["name"].replace("\n", " ") for row in data_of(increases)} == {
        f"{weights} · {cache}" for weights, cache in pairs
    }
    assert len(data_of(interactions)) == 2


@pytest.mark.parametrize("draw", [sensitivity, activation_range, factorial])
def test_without_measurements_nothing_is_drawn(draw: Any) -> None:
    assert draw([], CLAIM) == []


def test_a_map_takes_its_colours_from_the_page_and_is_drawn_without_scripts() -> None:
    cells = [m for m in sensitivities() if m["metric"] == "map_loss_increase"]
    panel = heat_map("a map", cells, "kind", "layer")
    spec = json.dumps(panel.chart.to_dict())
    assert "var(--series-1)" in spec
    assert "currentColor" in spec
    assert "#" not in spec
    svg = static_svg(panel, "map", 340)
    assert "attention projection" in svg
    assert "<script" not in svg
