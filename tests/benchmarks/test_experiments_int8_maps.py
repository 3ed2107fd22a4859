"""Sensitivity, activation ranges and the factorial, each on a case with a known answer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.int8 import activations as int8_activations
from benchmarks.experiments.int8 import factorial as int8_factorial
from benchmarks.experiments.int8 import sensitivity as int8_sensitivity
from benchmarks.experiments.int8.activations import (
    W8,
    block_gradients,
    input_statistics,
    with_fake_rounding,
)
from benchmarks.experiments.int8.factorial import FLOAT, NO_CACHE, interaction
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
from benchmarks.record.results import Measurement
from benchmarks.subjects import subject
from benchmarks.subjects.outliers import channels_of, model_with_outliers
from reference_model.checkpoints import REFERENCE_FOLDER, load_reference
from reference_model.config import GPTConfig
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.grid import Grid, rounded

SMOKE = Settings("smoke", "cpu", 0)
WINDOW = 512
CHANNELS = (17, 101, 202)


@pytest.fixture
def tokens() -> Tensor:
    """Two windows of the text that ships with the checkpoint, and the last target."""
    whole = load_file(REFERENCE_FOLDER / "test_slice.safetensors")["tokens"]
    return whole[: 2 * WINDOW + 1].long()


@pytest.fixture
def two_windows(tokens: Tensor) -> Windows:
    """Each as a text of its own, so that each is one observation."""
    return windows_of([tokens[: WINDOW + 1], tokens[WINDOW:]], WINDOW)


def drawn_windows(count: int) -> Windows:
    """Random tokens for `small`, each window a text of its own."""
    return windows_of(list(torch.randint(128, (count, 33))), 32)


@pytest.fixture
def model() -> GPT:
    return load_reference()


def small(**fields: object) -> GPT:
    """An untied model with a grid for every kind: 64 wide, so that a group fits."""
    known = {"vocab_size": 128, "context_length": 32, "n_layer": 2, "n_head": 2, "n_embd": 64}
    return GPT(GPTConfig(**{**known, "head": "untied", **fields})).eval()


def drawn_norms(model: GPT) -> GPT:
    """Fresh norms are 1 and 0, which every grid holds exactly."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".ln_" in f".{name}":
                parameter.add_(torch.randn_like(parameter) / 10)
    return model


# ---- planted outliers


def test_planted_outliers_leave_the_outputs_as_they_were(tokens: Tensor) -> None:
    exact = load_reference(torch.float64)
    planted = model_with_outliers(exact, CHANNELS, 100.0)
    with torch.inference_mode():
        assert not torch.equal(planted.h[0].ln_1.weight, exact.h[0].ln_1.weight)
        difference = planted(tokens[None, :256]) - exact(tokens[None, :256])
    assert difference.abs().max() <= 1e-10


def test_planted_outliers_coarsen_the_grids_of_gamma_and_of_activations(
    model: GPT, tokens: Tensor
) -> None:
    planted, found = model_with_outliers(model, CHANNELS, 100.0), []
    others = [channel for channel in range(256) if channel not in CHANNELS]
    x = model.embed(tokens[None, :64]).detach()
    for each in (model, planted):
        gamma, activations = each.h[2].ln_2.weight.detach(), each.h[2].ln_2(x).detach()[0]
        found.append(
            [
                float((rounded(values, grid) - values)[..., others].norm())
                for values, grid in (
                    (gamma, Grid(granularity="per tensor")),
                    (activations, Grid(granularity="per channel")),  # a row is a token
                )
            ]
        )
    (gamma_as_was, input_as_was), (gamma_planted, input_planted) = found
    assert gamma_planted > 10 * gamma_as_was
    assert input_planted > 5 * input_as_was


def test_outliers_are_planted_only_between_a_norm_and_the_linear_that_reads_it() -> None:
    with pytest.raises(UserError, match="between a norm and the linear behind it"):
        model_with_outliers(small(norm_placement="post"), [0], 10.0)


def test_planting_behind_an_rmsnorm_computes_the_same() -> None:
    model = small(norm="rmsnorm").double()
    tokens = torch.arange(9)[None]
    with torch.no_grad():
        planted = model_with_outliers(model, channels_of(model, (17, 202)), 10.0)
        assert (planted(tokens) - model(tokens)).abs().max() < 1e-10
    assert not torch.equal(planted.h[0].ln_1.weight, model.h[0].ln_1.weight)


@pytest.mark.parametrize(("channels", "strength"), [([64], 10.0), ([-1], 10.0), ([0], 0.0)])
def test_planting_outside_the_model_or_with_no_strength_is_an_error(
    channels: list[int], strength: float
) -> None:
    with pytest.raises(UserError, match="plant nothing"):
        model_with_outliers(small(), channels, strength)


# ---- sensitivity


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


# ---- activations and gradients


def test_statistics_of_inputs_are_those_of_a_gaussian_and_see_an_outlier() -> None:
    x = torch.randn(400, 256)
    reach, share, kurtosis = input_statistics(x)
    assert 4 < reach < 6
    assert share == 0
    assert kurtosis == pytest.approx(3, abs=0.1)
    x[::4, 0] = 50.0
    reach, share, kurtosis = input_statistics(x)
    assert reach > 25
    assert share == pytest.approx(100 / x.numel())
    assert kurtosis > 100


def test_gradients_pass_straight_through_where_nothing_is_rounded(
    model: GPT, tokens: Tensor
) -> None:
    x, y = tokens[None, :64], tokens[None, 1:65]
    exact = block_gradients(model, x, y)
    fake = block_gradients(with_fake_rounding(model, None, activations=False), x, y)
    for a, b in zip(exact, fake, strict=True):
        assert torch.equal(a, b)


def test_gradients_of_rounded_numbers_are_those_at_the_rounded_weights(tokens: Tensor) -> None:
    model = small()
    x, y = tokens[None, :16] % 128, tokens[None, 1:17] % 128
    moved = GPT(model.config)
    moved.load_state_dict(model.state_dict())
    with torch.no_grad():
        for module in moved.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(rounded(module.weight, W8))
    fake = block_gradients(with_fake_rounding(model, W8, activations=False), x, y)
    for a, b in zip(block_gradients(moved, x, y), fake, strict=True):
        torch.testing.assert_close(a, b)


def test_rounding_turns_the_gradient_and_planted_outliers_turn_it_further(
    two_windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "play_windows", lambda *_: two_windows)
    found = int8_activations.activation_range(SMOKE)

    def of(metric: str) -> list[float]:
        return [m.value for m in found if m.metric == metric]

    assert len(of("gradient_cosine")) == 6  # the claim's verdict rests on the checkpoint alone
    as_it_is, planted = of("gradient_cosine"), of("gradient_cosine_planted")
    in_four_bits = of("gradient_cosine_int4")
    assert min(as_it_is) > 0.995
    assert all(a > b for a, b in zip(as_it_is, in_four_bits, strict=True))
    assert all(a > b for a, b in zip(in_four_bits, planted, strict=True))
    assert max(planted) < 0.9
    ranges = ranges_of(found)
    for layer in range(6):
        for kind in ("qkv", "MLP in"):
            assert ranges["planted outliers", layer, kind] > 2 * ranges["checkpoint", layer, kind]
        for kind in ("attention projection", "MLP out"):  # behind no planted norm
            expected = pytest.approx(ranges["checkpoint", layer, kind], rel=1e-3)
            assert ranges["planted outliers", layer, kind] == expected


def ranges_of(found: list[Measurement]) -> dict[tuple[object, ...], float]:
    return {
        tuple(m.parameters[key] for key in ("model", "layer", "kind")): m.value
        for m in found
        if m.metric == "activation_range"
    }


# ---- the factorial


def test_losses_that_add_have_no_interaction_and_others_have_theirs() -> None:
    base, windows = np.random.default_rng(0).normal(3, 1, size=(30, 8)), drawn_windows(30)
    of_weights, of_cache = 0.01 * base, 0.02 * base
    losses = {
        (FLOAT, NO_CACHE): base,
        ("INT8", NO_CACHE): base + of_weights,
        (FLOAT, "3 bits"): base + of_cache,
        ("INT8", "3 bits"): base + of_weights + of_cache,
    }
    assert interaction(losses, windows, "INT8", "3 bits").value == pytest.approx(0, abs=1e-12)
    losses["INT8", "3 bits"] = losses["INT8", "3 bits"] + 0.1 * base
    found = interaction(losses, windows, "INT8", "3 bits")
    assert found.value == pytest.approx(0.1 * base.mean())
    assert found.interval[0] > 0
    assert found.n == 30


def test_the_factorial_measures_each_pair_and_an_interaction_for_each_of_both(
    two_windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "play_windows", lambda *_: two_windows)
    losses = {
        weights: int8_factorial.losses_of(SMOKE, weights)
        for weights in int8_factorial.FACTORIAL_WEIGHTS
    }
    found = int8_factorial.factorial(SMOKE, losses)
    increases = {
        (m.option, m.parameters["cache"]): m.value
        for m in found
        if m.metric == "factorial_loss_increase"
    }
    assert len(increases) == 3 * 4 - 1
    assert increases[FLOAT, "2 bits"] > increases[FLOAT, "4 bits"] > 0
    assert increases[FLOAT, "2 bits"] > 10 * abs(increases["INT8, norms skipped", NO_CACHE])
    assert sum(m.metric == "interaction" for m in found) == 2 * 3
