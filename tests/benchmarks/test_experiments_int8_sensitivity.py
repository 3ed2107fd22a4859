"""What each kind of module loses by rounding, each on a case with a known answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.int8 import sensitivity as int8_sensitivity
from benchmarks.experiments.int8.sensitivity import (
    FLOOR,
    INT4,
    INT8,
    KINDS,
    bytes_saved,
    kinds,
    kinds_of_layers,
    layers,
    names_of,
    ratios,
    readings,
    rounded_part,
    sensitivity_ratio,
    text_needed,
    untied,
)
from benchmarks.instruments.windows import Windows, windows_of
from benchmarks.subjects import subject
from reference_model.checkpoints import load_reference
from reference_model.model import GPT
from tests.benchmarks.small_models import WINDOW, drawn_norms, drawn_windows, shipped_tokens, small

SMOKE = Settings("smoke", "cpu", 0)


@pytest.fixture
def tokens() -> Tensor:
    return shipped_tokens()


@pytest.fixture
def two_windows(tokens: Tensor) -> Windows:
    """Each as a text of its own, so that each is one observation."""
    return windows_of([tokens[: WINDOW + 1], tokens[WINDOW:]], WINDOW)


@pytest.fixture
def model() -> GPT:
    return load_reference()


def test_an_untied_copy_computes_the_same(model: GPT, tokens: Tensor) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(untied(model)(tokens[None, :64]), model(tokens[None, :64]))


def test_every_parameter_but_positions_and_biases_belongs_to_one_kind() -> None:
    model = small()
    names = [name for part in kinds(model, INT8) for name in part.names]
    assert len(names) == len(set(names))
    left = {name for name, _ in model.named_parameters()} - set(names)
    assert all(name == "wpe.weight" or name.endswith("bias") for name in left)
    assert not any("ln_" in name for name in left)


def test_layers_share_no_parameter_and_their_kinds_make_them_up() -> None:
    model = small()
    of_layers = [name for part in layers(model, INT8) for name in part.names]
    of_cells = [name for part in kinds_of_layers(model, INT8) for name in part.names]
    assert len(of_layers) == len(set(of_layers)) == 2 * 4
    assert {name for name in of_cells if ".ln_" not in name} == set(of_layers)


def test_bytes_saved_count_codes_and_scales() -> None:
    model = small()
    (head,) = (part for part in kinds(model, INT8) if part.labels["kind"] == "head")
    assert bytes_saved(model, head) == 128 * 64 * 3 - 4 * 128
    assert bytes_saved(model, replace(head, grid=INT4)) == 128 * 64 * 3.5 - 4 * 128  # one group
    (norms,) = (part for part in kinds(model, INT8) if part.labels["kind"] == "norms")
    assert bytes_saved(model, norms) == 10 * (64 * 3 - 4)  # γ and β of five norms, a scale each


def test_a_rounded_part_touches_its_own_parameters_and_refuses_what_does_not_move() -> None:
    model = small()
    for part in kinds(drawn_norms(model), INT4):
        assert set(rounded_part(model, part)) == set(part.names)
    (norms,) = (part for part in kinds(small(), INT8) if part.labels["kind"] == "norms")
    with pytest.raises(ValueError, match="changed nothing"):
        rounded_part(small(), norms)


@pytest.mark.parametrize("kind", ["qkv", "MLP in", "head"])
def test_a_kind_with_an_outlier_in_each_row_is_ranked_first(kind: str) -> None:
    """The outliers meet an input that is 0: they harm nothing but the grid of their group."""
    model = drawn_norms(small())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" in f".{name}":
                parameter[0] = 0.0
            elif parameter.ndim == 2:
                parameter.mul_(5)
            if name in names_of(model, kind):
                parameter[:, 0] = 100.0 * parameter.abs().max()
    parts = kinds(model, INT4)
    found = readings(model, [rounded_part(model, part) for part in parts], drawn_windows(8))
    order = found.divergences.mean(axis=1).argsort()
    assert parts[order[-1]].labels["kind"] == kind


def test_nothing_changed_reads_as_no_loss_and_no_divergence() -> None:
    model = small()
    same = {"h.0.mlp.c_fc.weight": model.h[0].mlp.c_fc.weight}
    found = readings(model, [same], drawn_windows(4))
    assert found.increases == pytest.approx(np.zeros((1, 4)))
    assert found.divergences == pytest.approx(np.zeros((1, 4)), abs=1e-7)


def test_a_ratio_that_was_built_in_is_found() -> None:
    noise = np.random.default_rng(0).normal(size=(3, 400)) * 0.1
    losses = np.array([[1.0], [5.0], [20.0]]) * (1 + noise)
    found = sensitivity_ratio(losses, losses, drawn_windows(400))
    low, high = found.interval
    assert low < 20 < high
    assert found.value == pytest.approx(20, rel=0.05)


def test_kinds_that_are_alike_under_noise_are_not_told_apart() -> None:
    generator = np.random.default_rng(0)
    lows, windows = [], drawn_windows(20)
    for _ in range(40):
        losses = 1e-4 + 1e-3 * generator.normal(size=(7, 20))
        divergences = 1e-4 * (1 + 0.05 * generator.normal(size=(7, 20)))
        lows.append(sensitivity_ratio(losses, divergences, windows).interval[0])
    assert np.mean(np.array(lows) >= 10) <= 0.05


def test_the_text_that_is_said_to_be_needed_tells_the_kinds_apart_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    divergences = np.array([[1.0], [30.0]]) * np.ones(30)

    def drawn(windows: int) -> np.ndarray:
        return divergences[:, :1] + generator.normal(size=(2, windows)) * np.array([[6.0], [90.0]])

    plans = [text_needed(drawn(30), divergences, drawn_windows(30)) for _ in range(200)]
    needed = round(30 * np.median(plans))
    told = 0
    for _ in range(400):
        low, high = drawn_windows(needed).mean(np.array([1, -10]) @ drawn(needed)[::-1]).interval
        told += not low < 0 < high
    assert 0.74 < told / 400 < 0.86


def test_a_kind_that_loses_nothing_leaves_the_ratio_finite() -> None:
    losses = np.array([[-1.0, -1.0], [2.0, 2.0]])
    found = sensitivity_ratio(losses, np.abs(losses), drawn_windows(2))
    assert found.value == pytest.approx(2.0 / FLOOR)


def test_both_grids_have_a_ratio_with_the_norms_and_without() -> None:
    model = drawn_norms(small())
    parts = [part for grid in (INT8, INT4) for part in kinds(model, grid)]
    changes = [rounded_part(model, part) for part in parts]
    windows = drawn_windows(6)
    found = readings(model, changes, windows)
    made = list(ratios(model, parts, found, windows))
    assert {(m.metric, m.option) for m in made} == {
        (f"{name}{suffix}", grid.name)
        for name in ("sensitivity_ratio", "kl_ratio", "text_needed")
        for suffix in ("", "_without_norms")
        for grid in (INT8, INT4)
    }
    assert all(m.n == 6 for m in made if not m.metric.startswith("text_needed"))


def test_the_map_is_measured_on_the_checkpoint(
    two_windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "play_windows", lambda *_: two_windows)
    found = int8_sensitivity.sensitivity(SMOKE)
    by_kind = {m.parameters["kind"] for m in found if m.metric == "loss_increase"}
    assert by_kind == set(KINDS)
    assert {m.parameters["layer"] for m in found if m.metric == "layer_loss_increase"} == set(
        range(6)
    )
    divergences = [m for m in found if m.metric == "prediction_kl"]
    of = {(m.option, m.parameters["kind"]): m.value for m in divergences}
    assert all(of[INT4.name, kind] > 10 * of[INT8.name, kind] > 0 for kind in KINDS)
