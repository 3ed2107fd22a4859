"""L1's charts of training, of made-up measurements: what is drawn, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from reports.render.drawing import static_svg
from reports.render.lora_training_charts import first_step, moments, rank_pays
from reports.render.marks import Panel

Made = dict[str, Any]
CLAIM: Made = {"id": "any", "requirements": []}
OPTIONS = ("alpha/r", "alpha/sqrt(r)")
RANKS = (4, 16, 64, 256)
RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)


def made_up(metric: str, value: float, option: str, half: float = 0.01, **parameters: Any) -> Made:
    return {
        "claim": "any",
        "metric": metric,
        "unit": "1",
        "value": value,
        "interval": [value - half, value + half],
        "n": 5,
        "direction": "none",
        "choice": "scaling",
        "option": option,
        "parameters": parameters,
        "source": "checkpoint",
    }


def first_steps() -> list[Made]:
    made = []
    for rank in RANKS:
        for option in OPTIONS:
            for a in ("gaussian", "kaiming_uniform"):
                for kind in ("gain", "norm"):
                    labels = {"rank": rank, "a": a}
                    made.append(made_up(f"first_step_{kind}_ratio", 1.001, option, **labels))
            made.append(made_up("update_norm", 0.0, option, 0.0, rank=rank, step=0))
            for optimizer in ("sgd", "adamw"):
                for step in (1, 5):
                    labels = {"rank": rank, "optimizer": optimizer, "step": step}
                    made.append(made_up("update_norm", 0.1 * step, option, **labels))
        for kind in ("gain", "norm"):
            labels = {"rank": rank, "a": "gaussian"}
            made.append(made_up(f"adamw_first_step_{kind}_ratio", 0.999, "constant", **labels))
    return made


def all_moments() -> list[Made]:
    made = []
    for quantity in ("output", "gradient"):
        for option in OPTIONS:
            for step in (10, 40):
                name = f"{quantity}_moment"
                made.append(made_up(f"{name}_exponent", -0.5, option, step=step))
                for rank in RANKS:
                    value = step / rank
                    made.append(made_up(name, value, option, value / 10, rank=rank, step=step))
    return made


def losses() -> list[Made]:
    made = []
    for index, option in enumerate(OPTIONS):
        for name in ("equal", "tuned"):
            made.append(made_up("loss_gain", 0.03 * index, option, learning_rate=name, seeds=5))
            for rank in RANKS:
                labels = {"rank": rank, "learning_rate": name}
                made.append(made_up("held_out_loss", 5 - rank / 1000, option, **labels))
                if rank > RANKS[0]:
                    made.append(made_up("gain_over_rank_4", rank / 1000, option, **labels))
        for rate in RATES:
            made.append(made_up("gain_at_rate", rate, option, rate=rate))
            for rank in RANKS:
                made.append(made_up("loss_at_rate", 5 + rate, option, rank=rank, rate=rate))
    made += [made_up("seconds_per_step", rank / 100, "both", rank=rank) for rank in RANKS]
    return made


def all_rows(panel: Panel) -> list[Made]:
    drawn = panel.chart.to_dict()
    layers = [drawn, *drawn.get("layer", [])]
    return [row for layer in layers for row in layer.get("data", {}).get("values", [])]


@pytest.mark.parametrize(
    ("draw", "made", "titles"),
    [
        (first_step, first_steps(), 2 + 2 + 4),
        (moments, all_moments(), 2 + 2),
        (rank_pays, losses(), 3 + 1 + 2 + 1),
    ],
)
def test_each_panel_has_a_title_of_its_own_and_is_drawn(
    draw: Any, made: list[Made], titles: int
) -> None:
    panels = draw(made, CLAIM)
    assert len({panel.title for panel in panels}) == len(panels) == titles
    for index, panel in enumerate(panels):
        assert static_svg(panel, f"p{index}", 600).startswith("<svg")
        assert all_rows(panel)
    assert draw([], CLAIM) == []


def test_first_step_ratios_show_each_kind_of_a_once() -> None:
    panel = first_step(first_steps(), CLAIM)[0]
    assert len(panel.series) == 2
    assert {row["x"] for row in all_rows(panel)} == set(RANKS)


def test_the_zero_before_the_first_step_is_not_drawn_among_the_later_ones() -> None:
    later = [p for p in first_step(first_steps(), CLAIM) if "k steps" in p.title]
    assert len(later) == 4
    assert all(row["value"] > 0 for panel in later for row in all_rows(panel))


def test_moments_are_those_after_the_last_step() -> None:
    panel = moments(all_moments(), CLAIM)[0]
    assert "after 40 steps" in panel.title
    assert {row["value"] for row in all_rows(panel)} == {40 / rank for rank in RANKS}


def test_loss_against_rank_has_both_scalings_at_both_rates() -> None:
    panel = next(p for p in rank_pays(losses(), CLAIM) if p.title == "held-out loss against rank")
    assert len(panel.series) == 4
