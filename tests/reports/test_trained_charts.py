"""Charts of models that were trained to be compared: what is drawn, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from reports.render import trained_charts as charts
from reports.render.charts import saved_share
from reports.render.drawing import static_svg
from reports.render.selection import Claim
from tests.reports.test_lora_training_charts import all_rows, made_up

AT_LEAST = {"metric": "loss_advantage", "region": {"at_least": 0.01}}
CLAIM: Claim = {"id": "any", "requirements": [AT_LEAST]}
OPTIONS = ("learned", "rope")


def comparison() -> list[dict[str, Any]]:
    made = [
        made_up("loss_advantage", 0.3, "rope", over="learned", tokens=tokens)
        for tokens in (1024, 2048)
    ]
    for option in OPTIONS:
        made += [
            made_up("training_loss", 6 - step / 10, option, tokens=1024 * step)
            for step in range(1, 20)
        ]
        made += [made_up("tuning_loss", 4 + rate, option, rate=rate) for rate in (1e-3, 2e-3)]
    return made


def extrapolation() -> list[dict[str, Any]]:
    made = [
        made_up("loss_rise", 0.1, "rope", length_ratio=ratio, rope_scaling=scaling, tuned=False)
        for ratio in (2, 4)
        for scaling in ("none", "ntk")
    ]
    for option in OPTIONS:
        made += [made_up("loss_by_position", 4.0, option, position=32 * i) for i in range(1, 17)]
        made += [made_up("copied", 1 / ratio, option, length_ratio=ratio) for ratio in (1, 2, 4)]
    return made


def borders() -> list[dict[str, Any]]:
    return [
        made_up(metric, 0.03, option, depth=depth, warmup_steps=warmup)
        for metric in ("stable_rate_ratio", "largest_stable_rate")
        for option in ("pre", "post")
        for depth in (4, 12)
        for warmup in (0, 100)
    ]


def laws() -> list[dict[str, Any]]:
    made = [
        made_up("best_rate", 1e-3, option, 1e-4, rank=rank)
        for option in ("alpha/r", "alpha/sqrt(r)")
        for rank in (4, 16, 64, 256)
    ]
    return made + [made_up("exponent", -0.2, "alpha/r", rule=rule) for rule in ("three", "four")]


DRAWN = [
    (
        charts.compared,
        comparison,
        [
            "loss that an option saves",
            "training loss against tokens",
            "loss by learning rate, seeds for tuning",
        ],
    ),
    (
        charts.extrapolated,
        extrapolation,
        [
            "rise of the loss beyond the trained length, on the same targets, length ratio 2",
            "rise of the loss beyond the trained length, on the same targets, length ratio 4",
            "held-out loss by position",
            "answers copied from a distance",
        ],
    ),
    (
        charts.stable_rates,
        borders,
        [
            "largest stable rate over another placement's",
            "largest stable learning rate, warmup steps 0",
            "largest stable learning rate, warmup steps 100",
        ],
    ),
    (
        charts.rate_law,
        laws,
        ["best learning rate against the rank", "exponent of the rank in it"],
    ),
]


@pytest.mark.parametrize(("draw", "made", "titles"), DRAWN)
def test_charts_are_those_of_what_was_measured(draw: Any, made: Any, titles: list[str]) -> None:
    panels = draw(made(), CLAIM)
    assert [panel.title for panel in panels] == titles
    assert all(panel.chart.to_dict() for panel in panels)  # each is valid
    assert draw([], CLAIM) == []


def test_a_way_has_a_band_and_a_difference_the_border_of_its_claim() -> None:
    saved, way, _ = charts.compared(comparison(), CLAIM)
    assert "where the claim's region ends, 0.01" in saved.note
    assert way.series == OPTIONS
    assert "area" in {layer["mark"]["type"] for layer in way.declared["layer"]}
    assert "<svg" in static_svg(way, "way", 600)


def test_variants_show_their_stable_rates_too() -> None:
    costs = [made_up("seconds_ratio", 0.9, "rmsnorm", of=of) for of in ("a norm", "a step")]
    made = [*comparison(), *borders(), *costs]
    titles = [panel.title for panel in charts.variants(made, CLAIM)]
    assert titles[0] == "loss that an option saves"
    assert titles[-2].startswith("largest stable learning rate")
    assert titles[-1] == "RMSNorm's seconds over LayerNorm's"


def test_published_models_stand_against_their_size_by_their_heads() -> None:
    published = [
        made_up(
            f"saved_share_of_untied{'' if size == 7 else '_at_other_sizes'}",
            0.1 / size,
            "as published",
            0.0,
            model=f"{size} B",
            size=size * 10**9,
            head="tied" if size < 3 else "untied",
        )
        for size in (1, 2, 7, 70)
    ]
    *_, against_size = saved_share(published, CLAIM)
    assert against_size.title == "share that tying saves, or would save, against size"
    assert against_size.series == ("tied", "untied")
    shown = {row["model"]: (row["x"], row["value"]) for row in all_rows(against_size)}
    assert shown["70 B"] == (70 * 10**9, pytest.approx(0.1 / 70))
    for model in published:
        del model["parameters"]["size"]
    assert not any("against" in panel.title for panel in saved_share(published, CLAIM))
