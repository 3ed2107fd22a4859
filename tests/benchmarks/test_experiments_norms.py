"""The gradient instrument gives known answers before it is believed on unknown ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.norms import lesson as norms
from benchmarks.experiments.norms.lesson import (
    Scale,
    build,
    exponents,
    gradient_norms,
    gradient_profile,
)
from benchmarks.record.results import Measurement
from reference_model.config import Initialization, NormPlacement


def by_option(found: list[Measurement], metric: str) -> dict[str, list[Measurement]]:
    chosen = [m for m in found if m.metric == metric]
    return {option: [m for m in chosen if m.option == option] for option in ("post", "pre")}


def test_a_planted_power_law_is_found_and_none_where_there_is_none() -> None:
    depths = (8, 16, 32, 48)
    planted = np.array(
        [[3.0 * L**-0.5 for L in depths], [0.1 * L**0.25 for L in depths], [2.0] * 4]
    )
    assert exponents(depths, planted) == pytest.approx([-0.5, 0.25, 0.0], abs=1e-12)


@pytest.mark.parametrize(
    ("placement", "initialization"), [("post", "xavier"), ("pre", "gpt2"), ("deepnorm", "deepnorm")]
)
def test_the_norms_are_those_of_a_plain_backward_pass(
    placement: NormPlacement, initialization: Initialization
) -> None:
    model = build(placement, initialization, 3, 64)
    torch.manual_seed(5)
    found = gradient_norms(model, 2)
    torch.manual_seed(5)
    tokens = torch.randint(256, (2, 33))
    cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten()).backward()
    plain = [block.mlp.c_proj.weight.grad.norm().item() for block in model.h]
    assert found == pytest.approx(plain, rel=1e-5)


def test_the_theorems_models_read_inputs_of_variance_one_and_do_not_tie_them_to_the_head() -> None:
    model = build("pre", "xavier", 1, 64)
    assert model.wte.weight.var().item() == pytest.approx(1, rel=0.05)
    assert model.lm_head.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_gpt2s_models_are_as_they_are_built_everywhere_else() -> None:
    model = build("post", "gpt2", 2, 64)
    assert model.lm_head.weight is model.wte.weight
    assert model.wte.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.h[1].mlp.c_proj.weight.std().item() == pytest.approx(0.01, rel=0.05)


def test_the_theorems_exponents_come_out_in_narrow_models(monkeypatch: pytest.MonkeyPatch) -> None:
    scale = Scale(norms.THEOREM, width=64, seeds=3, batch_size=4)
    monkeypatch.setattr(norms, "DEPTHS", (8, 24))
    monkeypatch.setitem(norms.SWEEP, "smoke", scale)
    found = by_option(gradient_profile(Settings("smoke", "cpu", 0)), "exponent")
    assert [m.value for m in found["post"]] == [pytest.approx(0, abs=0.2)]
    assert [m.value for m in found["pre"]] == [pytest.approx(-0.5, abs=0.2)]
    assert {m.n for m in found["post"] + found["pre"]} == {3}


def test_a_profile_names_each_layer_and_the_ratio_is_that_of_its_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(norms, "DEPTHS", (8, 9))
    tiny = Scale(norms.THEOREM, width=64, seeds=2, batch_size=1)
    monkeypatch.setitem(norms.SWEEP, "quick", tiny)
    monkeypatch.setitem(norms.DEEPEST, "quick", tiny)
    found = gradient_profile(Settings("quick", "cpu", 0))
    for option, layers in by_option(found, "gradient_norm").items():
        assert [m.parameters["layer"] for m in layers] == list(range(1, 10))
        (ratio,) = by_option(found, "first_to_last_ratio")[option]
        assert ratio.value == pytest.approx(layers[0].value / layers[-1].value)
        assert ratio.parameters["depth"] == 9


def test_a_seed_repeats_itself_and_another_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(norms, "DEPTHS", (8, 9))
    monkeypatch.setitem(norms.SWEEP, "smoke", Scale(norms.THEOREM, width=64, seeds=2, batch_size=1))
    first, again, other = (
        [m.value for m in gradient_profile(Settings("smoke", "cpu", seed))] for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other
