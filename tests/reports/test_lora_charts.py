"""L1's charts of made-up measurements: the law beside what was measured, and the checks' errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from reports.render.drawing import static_svg
from reports.render.lora_charts import error_rates, variance_by_rank
from reports.render.marks import Panel

Made = dict[str, Any]
CLAIM: Made = {"id": "any", "requirements": []}
CHECKS = ("value", "exponent", "equivalence", "dependence")
POWERS = {"alpha/r": -1, "alpha/sqrt(r)": 0}


def made_up(metric: str, value: float, option: str, **parameters: Any) -> Made:
    return {
        "claim": "any",
        "metric": metric,
        "unit": "1",
        "value": value,
        "interval": [0.99 * value, 1.01 * value],
        "n": 20,
        "direction": "none",
        "choice": "scaling",
        "option": option,
        "parameters": parameters,
        "source": "simulation",
    }


def variances() -> list[Made]:
    made = []
    for option, power in POWERS.items():
        for a, size in (("gaussian", 3.0), ("kaiming_uniform", 1.0)):
            for rank in (1, 4, 16, 64, 256):
                law, wiggle = size * float(rank) ** power, 1 + 0.002 * (rank % 3)
                labels = {"rank": rank, "a": a, "width": 768}
                made.append(made_up("variance", law * wiggle, option, **labels))
                made.append(made_up("variance_over_law", wiggle, option, **labels))
    return made


def rates() -> list[Made]:
    made = []
    for check in CHECKS:
        for a in ("gaussian", "kaiming_uniform"):
            labels = {"check": check, "a": a}
            made.append(made_up("false_alarm_rate", 0.05, "alpha/sqrt(r)", **labels))
            made.append(made_up("power", 1.0, "rho = 0.1", **labels))
            sees = check == "value"
            metric, rate = ("power", 1.0) if sees else ("rejection_rate", 0.05)
            made.append(made_up(metric, rate, "init off by sqrt(2)", **labels))
    for border in ("exponent off by -0.02", "exponent off by 0.02"):
        made.append(
            made_up("false_equivalence_rate", 0.04, border, check="equivalence", a="gaussian")
        )
    return made


def rows_of_layers(panel: Panel) -> list[list[Made]]:
    spec = panel.chart.to_dict()
    own = [spec["data"]["values"]] if "data" in spec else []
    return own + [layer["data"]["values"] for layer in spec["layer"] if "data" in layer]


def test_each_scaling_has_its_panel_with_the_law_of_every_series_dashed() -> None:
    panels = variance_by_rank(variances(), CLAIM)
    assert [p.title.rsplit(", ", 1)[1] for p in panels] == ["α/r", "α/√r"]
    for panel, power in zip(panels, POWERS.values(), strict=True):
        assert panel.note == "Dashed: what the law predicts."
        assert panel.series == ("gaussian", "kaiming uniform")
        law = [row for rows in rows_of_layers(panel) for row in rows if row["interval"] == "exact"]
        assert len(law) == 2 * 5
        for row in law:
            size = 3.0 if row["name"] == "gaussian" else 1.0
            assert row["value"] == pytest.approx(size * row["x"] ** power)


def test_variances_and_ranks_are_on_log_scales_that_panels_share() -> None:
    specs = [p.chart.to_dict() for p in variance_by_rank(variances(), CLAIM)]
    scales = []
    for spec in specs:
        encodings = [layer["encoding"] for layer in spec["layer"]]
        y = next(e["y"]["scale"] for e in encodings if "scale" in e.get("y", {}))
        x = next(e["x"]["scale"] for e in encodings if "scale" in e.get("x", {}))
        assert (x["type"], y["type"]) == ("log", "log")
        scales.append(y)
    assert scales[0] == scales[1]


def test_without_a_ratio_to_the_law_no_law_is_drawn() -> None:
    measured = [m for m in variances() if m["metric"] == "variance"]
    panels = variance_by_rank(measured, CLAIM)
    assert [p.note for p in panels] == ["", ""]


def test_wrong_alarms_stand_beside_the_nominal_level_and_each_wrong_law_has_its_panel() -> None:
    panels = error_rates(rates(), CLAIM)
    wrong, correlated, off = panels
    assert "is wrong" in wrong.title
    assert "correlation of 0.1" in correlated.title
    assert "√2" in off.title
    for panel in panels:
        assert panel.note == "Dashed: the level that each check is to keep, 0.05."
        assert any([row["value"] for row in rows] == [0.05] for rows in rows_of_layers(panel))
    # Every check twice, and the equivalence once more at each border.
    assert max(len(rows) for rows in rows_of_layers(wrong)) == 2 * 4 + 2
    assert max(len(rows) for rows in rows_of_layers(off)) == 2 * 4


def test_error_rates_follow_the_variances() -> None:
    titles = [p.title for p in variance_by_rank([*variances(), *rates()], CLAIM)]
    assert len(titles) == 2 + 3
    assert "variance" in titles[0]
    assert "check" in titles[-1]


@pytest.mark.parametrize("draw", [variance_by_rank, error_rates])
def test_without_measurements_nothing_is_drawn(draw: Any) -> None:
    assert draw([], CLAIM) == []


def test_rates_take_their_colours_from_the_page_and_are_drawn_without_scripts() -> None:
    panel = error_rates(rates(), CLAIM)[0]
    spec = json.dumps(panel.chart.to_dict())
    assert "var(--series-1)" in spec
    assert "#" not in spec
    svg = static_svg(panel, "rates", 340)
    assert "dependence" in svg
    assert "<script" not in svg
