"""The first step from B = 0: closed forms against draws, and against real optimisers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.lora import first_step as first
from benchmarks.experiments.lora import laws
from benchmarks.instruments.finetuning import Optimizer, adapted, topic_batches
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
from reference_model.checkpoints import load_reference
from reference_model.lora import InitA, LoRAConfig

SMOKE = Settings("smoke", "cpu", seed=0)
D, N = 7, 12


@pytest.fixture(scope="module")
def gradient() -> Tensor:
    """Of few directions and rows of unlike size, as real ones are."""
    generator = torch.Generator().manual_seed(1)
    left, right = (torch.randn(size, 3, generator=generator) for size in (D, N))
    return left @ torch.diag(torch.tensor([3.0, 1.0, 0.2])) @ right.T


def drawn(a: InitA, rank: int, draws: int) -> Tensor:
    return first.draws_of(a, rank, draws, N, torch.Generator().manual_seed(2))


def verdict(measurements: list[Measurement], metric: str) -> str:
    (claim,) = (entry for entry in load_claims() if entry.id == "lora.real-init")
    parts = zip(claim.requirements, judge_claim(claim, measurements)[1], strict=True)
    return next(found.verdict for requirement, found in parts if requirement.metric == metric)


@pytest.mark.parametrize("rank", [1, 5, 40])  # below n and above it: two ways to multiply
def test_gain_and_norm_are_those_of_the_update_written_out(gradient: Tensor, rank: int) -> None:
    a = drawn("gaussian", rank, 3)
    step = laws.sgd_first_step(gradient.T @ gradient, a)
    for index in range(3):
        update = -gradient @ a[index].T @ a[index]  # η = γ = 1
        assert step.gain[index] == pytest.approx(float(-(gradient * update).sum()), rel=1e-4)
        square = float(update.square().sum())
        assert step.squared_norm[index] == pytest.approx(square, rel=1e-4)


@pytest.mark.parametrize("rank", [1, 6, 48])
@pytest.mark.parametrize("a", ["gaussian", "kaiming_uniform"])
def test_sgds_closed_form_is_the_mean_over_many_draws(
    gradient: Tensor, a: InitA, rank: int
) -> None:
    step = laws.sgd_first_step(gradient.T @ gradient, drawn(a, rank, 120_000 // rank + 20_000))
    expected = laws.sgd_expected(gradient, rank, a, rate=1.0, scale=1.0)
    for seen, mean in ((step.gain, expected.gain), (step.squared_norm, expected.squared_norm)):
        error = float(seen.std()) / len(seen) ** 0.5
        assert abs(float(seen.mean()) - float(mean)) < 4 * error
        assert error < 0.01 * float(mean)


def test_the_kurtosis_of_a_is_part_of_the_law(gradient: Tensor) -> None:
    # At rank 1 the two differ by (n + 2)/(n + 0.8), which these draws tell apart.
    step = laws.sgd_first_step(gradient.T @ gradient, drawn("kaiming_uniform", 1, 400_000))
    own = laws.sgd_expected(gradient, 1, "kaiming_uniform", 1.0, 1.0).squared_norm
    of_a_gaussian = float(own) * (N + 2) / (N + 0.8)
    error = float(step.squared_norm.std()) / 400_000**0.5
    assert abs(float(step.squared_norm.mean()) - of_a_gaussian) > 5 * error


@pytest.mark.parametrize("rank", [1, 6, 48])
def test_adamws_closed_form_is_the_mean_over_many_draws(gradient: Tensor, rank: int) -> None:
    a = drawn("gaussian", rank, 60_000 // rank + 5000)
    step = laws.adamw_first_step(gradient, a, rate=0.5, scale=3.0)
    expected = laws.adamw_expected(gradient, rank, rate=0.5, scale=3.0)
    for seen, mean in ((step.gain, expected.gain), (step.squared_norm, expected.squared_norm)):
        error = float(seen.std()) / len(seen) ** 0.5
        assert abs(float(seen.mean()) - float(mean)) < 4 * error
        assert error < 0.01 * float(mean)


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1.0, "confirmed"), (2.0, "refuted"), (1 / 1.05, "refuted")],  # 2: a deviation off by √2
)
def test_the_law_is_confirmed_and_an_init_that_is_off_is_not(
    gradient: Tensor, monkeypatch: pytest.MonkeyPatch, factor: float, expected: str
) -> None:
    right = laws.deviation_squared
    monkeypatch.setattr(laws, "deviation_squared", lambda a, n: factor * right(a, n))
    monkeypatch.setitem(first.RANKS, "smoke", [1, 8, 48])
    monkeypatch.setitem(first.DRAWS_AT_RANK_1, "smoke", 400_000)
    monkeypatch.setitem(first.LEAST_DRAWS, "smoke", 20_000)
    measured = list(first._ratios(SMOKE, [gradient]))
    assert verdict(measured, "first_step_gain_ratio") == expected
    assert verdict(measured, "first_step_norm_ratio") == expected


@pytest.fixture(scope="module")
def exact() -> list[Tensor]:
    return first.gradients(load_reference(torch.float64), topic_batches(1, 32, 0)(0))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_real_optimiser_takes_the_step_of_the_formula(
    exact: list[Tensor], optimizer: Optimizer
) -> None:
    config = LoRAConfig(4, first.ALPHA, "rslora", first.TARGETS)
    stepped = first.update_after_one_step(config, optimizer, topic_batches(1, 32, 0), seed=0)
    scale, epsilon = config.scale, first.EPSILON
    assert first.largest_deviation(exact, stepped, scale, optimizer, epsilon) < 1e-9
    # Another scale, or another text, is seen.
    assert first.largest_deviation(exact, stepped, 1.01 * scale, optimizer, epsilon) > 0.009
    others = first.gradients(load_reference(torch.float64), topic_batches(1, 32, 1)(0))
    assert first.largest_deviation(others, stepped, scale, optimizer, epsilon) > 0.1


def test_gradients_are_those_of_the_slices_in_the_order_of_the_adapters(
    exact: list[Tensor],
) -> None:
    model = adapted(LoRAConfig(2, targets=first.TARGETS, init_b="gaussian"), 0)
    pairs = list(zip(exact, first.updates_of(model), strict=True))
    assert all(g.shape == update.shape for g, (_, update) in pairs)
    assert len(pairs) == 5 * model.config.n_layer


def test_only_fresh_adapters_with_b_at_zero_leave_the_weights_alone() -> None:
    assert first.update_norm(adapted(LoRAConfig(2, targets=first.TARGETS), 0)) == 0
    assert first.update_norm(adapted(LoRAConfig(2, init_b="gaussian"), 0)) > 0


def test_later_steps_have_exponents_with_intervals_over_seeds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(first, "BATCH_SIZE", 1)
    monkeypatch.setattr(first, "LENGTH", 32)
    marks, ranks = (1, 2), (2, 8)
    of_seeds = [first.walks(seed, marks, ranks) for seed in range(2)]
    found = list(first.later_steps(of_seeds, marks, ranks))
    norms = [m for m in found if m.metric == "update_norm"]
    assert len(norms) == 2 * 2 * 2 * 2  # optimisers, scalings, steps, ranks
    assert all(m.interval is not None and m.n == 2 for m in found)
    slope = {
        (m.option, m.parameters["optimizer"]): m.value
        for m in found
        if m.metric == "gain_exponent_after_steps" and m.parameters["step"] == 1
    }
    # γ²r for SGD, γr for AdamW.
    expected = {"alpha/r": (-1.0, 0.0), "alpha/sqrt(r)": (0.0, 0.5)}
    for option, (sgd, adamw) in expected.items():
        assert slope[option, "sgd"] == pytest.approx(sgd, abs=0.25)
        assert slope[option, "adamw"] == pytest.approx(adamw, abs=0.25)
    assert np.isfinite([m.value for m in found]).all()


def test_a_full_run_has_a_cell_for_each_part_and_shorter_ones_have_all_in_one() -> None:
    parts = [cell.parameters["part"] for cell in first.cells(Settings("full", "cpu", 0))]
    assert parts == [*first.SHARES, *["later steps"] * first.SEEDS]
    assert [cell.parameters for cell in first.cells(SMOKE)] == [{}]
