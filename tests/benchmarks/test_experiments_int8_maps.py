"""Planted outliers, activation ranges and the factorial, each on a case with a known answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.int8 import activations as int8_activations
from benchmarks.experiments.int8 import factorial as int8_factorial
from benchmarks.experiments.int8.activations import (
    W8,
    block_gradients,
    input_statistics,
    with_fake_rounding,
)
from benchmarks.experiments.int8.factorial import FLOAT, NO_CACHE, interaction
from benchmarks.experiments.int8.lesson import cells_of_weights
from benchmarks.instruments.windows import Windows, windows_of
from benchmarks.record.results import Measurement
from benchmarks.subjects import subject
from benchmarks.subjects.outliers import channels_of, model_with_outliers
from reference_model.checkpoints import load_reference
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.grid import Grid, rounded
from tests.benchmarks.small_models import WINDOW, drawn_windows, shipped_tokens, small

SMOKE = Settings("smoke", "cpu", 0)
CHANNELS = (17, 101, 202)


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
    weights = int8_factorial.kinds_of_weights(SMOKE)
    losses = {kind: int8_factorial.losses_of(SMOKE, kind) for kind in weights}
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


def test_weights_that_are_not_rounded_are_named_by_the_dtype_of_the_run(
    two_windows: Windows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "play_windows", lambda *_: two_windows)
    monkeypatch.setattr(int8_factorial, "BITS", (3,))
    asked = Settings("full", "cpu", 0, dtype="bfloat16")
    cells = [each.parameters["factorial"] for each in cells_of_weights(asked)[-3:]]
    found = int8_factorial.factorial(
        asked, {kind: int8_factorial.losses_of(asked, kind) for kind in cells}
    )
    assert dict.fromkeys(m.option for m in found) == dict.fromkeys(
        ("bfloat16 weights", "INT8, norms skipped", "INT8, norms too")
    )
    assert FLOAT in int8_factorial.kinds_of_weights(SMOKE)
