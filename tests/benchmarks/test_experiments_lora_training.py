"""Fine-tunes by rank: moments of adapters, and verdicts on made-up losses with known answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.claims import load_claims
from benchmarks.experiment import Settings
from benchmarks.experiments import lora_training as training
from benchmarks.instruments.finetuning import FineTune, Outcome, adapted
from benchmarks.results import Measurement
from benchmarks.stats import unweighted_slopes
from benchmarks.verdicts import judge_claim
from reference_model.lora import LoRAConfig, adapter_parameters, lora_linears
from reference_model.training import batch_loss

SMOKE = Settings("smoke", "cpu", seed=0)


def verdict(claim: str, measurements: list[Measurement]) -> str:
    (found,) = (entry for entry in load_claims() if entry.id == claim)
    return judge_claim(found, measurements)[0].verdict


def the(measurements: list[Measurement], metric: str, **wanted: object) -> Measurement:
    (found,) = (
        m
        for m in measurements
        if m.metric == metric and all(m.labels[key] == value for key, value in wanted.items())
    )
    return found


# ---- moments


@pytest.fixture
def batch() -> Tensor:
    return torch.arange(2 * 17).view(2, 17) * 7


def test_moments_are_those_of_what_the_adapter_adds_and_sends_back(batch: Tensor) -> None:
    model = adapted(LoRAConfig(4, targets=("mlp_out",), init_b="gaussian"), 0)
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    linears = lora_linears(model)
    for name, linear in linears.items():
        linear.register_forward_hook(
            lambda module, x, y, name=name: seen.__setitem__(name, (x[0].detach(), y.detach()))
        )
    output, returned = training.adapter_moments(model, batch)
    added = [
        (y - linears[name].base(x)).square().mean().log().item() for name, (x, y) in seen.items()
    ]
    assert output == pytest.approx(np.exp(np.mean(added)), rel=1e-4)
    assert returned > 0


def test_the_gradient_sent_back_is_the_difference_an_adapter_makes(batch: Tensor) -> None:
    # In the last linear alone: what its input is sent with the adapter, less what W alone sends.
    model = adapted(LoRAConfig(4, targets=("mlp_out",), init_b="gaussian"), 0)
    for name, linear in lora_linears(model).items():
        if not name.startswith("h.5."):
            model.set_submodule(name, linear.base)
    (linear,) = lora_linears(model).values()
    kept: list[Tensor] = []

    def watched(module: object, x: tuple[Tensor]) -> tuple[Tensor]:
        kept.append(x[0].detach().requires_grad_())
        return (kept[0],)

    # The residual hands the gradient of the block's output to the linear as it is.
    g: list[Tensor] = []

    def outgoing(module: object, x: object, y: Tensor) -> Tensor:
        passed_on = y.clone()
        passed_on.register_hook(g.append)
        return passed_on

    hooks = (
        linear.register_forward_pre_hook(watched),
        model.h[5].register_forward_hook(outgoing),
    )
    batch_loss(model, batch).backward()
    for hook in hooks:
        hook.remove()
    through = kept[0].grad - g[0] @ linear.base.weight.detach()
    returned = training.adapter_moments(model, batch)[1]
    assert returned == pytest.approx(float(through.square().mean()), rel=1e-3)


def test_measuring_moments_leaves_the_model_as_it_was(batch: Tensor) -> None:
    model = adapted(LoRAConfig(4, init_b="gaussian"), 0)
    with torch.no_grad():
        before = model(batch)
    first = training.adapter_moments(model, batch)
    assert training.adapter_moments(model, batch) == first
    assert all(parameter.grad is None for parameter in adapter_parameters(model))
    with torch.no_grad():
        assert torch.equal(model(batch), before)


@pytest.mark.parametrize(
    ("lora", "rslora", "expected"),
    [(-2, 0, "confirmed"), (-1, 0, "confirmed"), (-1, 1, "refuted"), (0, 1, "refuted")],
)
def test_moments_of_a_known_exponent_are_judged_by_it(
    monkeypatch: pytest.MonkeyPatch, lora: int, rslora: int, expected: str
) -> None:
    noise = np.random.default_rng(0)

    def made_up(config: LoRAConfig, *_: object) -> list[tuple[float, float]]:
        power = lora if config.scaling == "lora" else rslora
        return [tuple(config.rank**power * np.exp(0.002 * noise.standard_normal(2)))]

    monkeypatch.setattr(training, "moments_along", made_up)
    monkeypatch.setitem(training.MOMENT_SEEDS, "smoke", 5)
    found = training.activation_stability(SMOKE)
    assert verdict("lora.activation-stability", found) == expected
    slope = the(found, "output_moment_exponent", option="alpha/sqrt(r)")
    assert slope.value == pytest.approx(rslora, abs=0.01)
    assert slope.n == 5


@pytest.mark.parametrize(("option", "power"), [("alpha/r", -4), ("alpha/sqrt(r)", -2)])
def test_after_one_sgd_step_the_gradient_sent_back_follows_its_closed_form(
    option: str, power: int
) -> None:
    ranks, width = np.array([4, 16, 64, 256]), 256
    targets = ("query", "key", "value", "attention_output", "mlp_in")
    seen = [
        training.moments_along(
            LoRAConfig(int(rank), scaling=training.SCALINGS[option], targets=targets),
            "sgd",
            0,
            (1,),
            (2, 64),
        )[0][1]
        for rank in ranks
    ]
    law = ranks.astype(float) ** power * ranks * (ranks + width - 0.2)  # γ⁴ r(r + n − 2 + κ)
    slope, expected = unweighted_slopes(ranks, np.stack([seen, law]))
    assert slope == pytest.approx(expected, abs=0.05)


def test_a_real_fine_tune_has_moments_after_each_mark() -> None:
    config = LoRAConfig(4, targets=("query",))
    first, second = training.moments_along(config, "sgd", 0, (1, 2), (1, 16))
    assert 0 < first[0] < second[0]
    assert min(*first, *second) > 0


# ---- lora.rank-pays


def made_sweep(loss: Callable[[str, int, float], float | None]) -> training.Sweep:
    """Losses by scaling, rank and rate, with scatter of seeds and windows that pairs take out."""
    windows = np.random.default_rng(0).normal(5, 0.5, 12)
    noise = np.random.default_rng(1)
    found = {}
    for option in training.SCALINGS:
        for rank in training.RANKS:
            for rate in training.LEARNING_RATES:
                mean, outcomes = loss(option, rank, rate), []
                for seed in range(training.SEEDS):
                    if mean is None:
                        outcomes.append(Outcome([], [], rank, 100, 8 * rank, 0.1))
                        continue
                    held = windows + mean + 0.1 * seed + 1e-4 * noise.standard_normal(12)
                    outcomes.append(
                        Outcome([mean], held.tolist(), rank, 100, 8 * rank, 0.1 + 0.001 * seed)
                    )
                found[option, rank, rate] = outcomes
    return found


def judged(loss: Callable[[str, int, float], float | None]) -> tuple[str, list[Measurement]]:
    measurements = list(training.findings(made_sweep(loss)))
    assert len({m.id for m in measurements}) == len(measurements)
    return verdict("lora.rank-pays", measurements), measurements


def off_best(rate: float, best: float) -> float:
    return 0.05 * abs(float(np.log(rate / best)))


def test_a_rank_that_pays_with_one_scaling_only_confirms() -> None:
    def loss(option: str, rank: int, rate: float) -> float:
        saved = 0.01 * np.log2(rank) if option == "alpha/sqrt(r)" else 0.0
        return off_best(rate, training.EQUAL_RATE) - saved

    found, measurements = judged(loss)
    assert found == "confirmed"
    gain = the(measurements, "loss_gain", option="alpha/sqrt(r)", learning_rate="tuned")
    assert gain.value == pytest.approx(0.06, abs=1e-3)
    assert gain.n == training.SEEDS
    over = the(measurements, "gain_over_alpha_r", rank=64, learning_rate="equal")
    assert over.value == pytest.approx(0.06, abs=1e-3)


def test_a_rank_that_pays_by_nothing_refutes() -> None:
    found, _ = judged(lambda option, rank, rate: off_best(rate, training.EQUAL_RATE))
    assert found == "refuted"


def test_a_gain_that_the_learning_rate_explains_depends() -> None:
    # α/r needs a rate that grows with the rank; once it has it, the rank pays there too.
    def loss(option: str, rank: int, rate: float) -> float:
        index = training.RANKS.index(rank) + 1 if option == "alpha/r" else 2
        return off_best(rate, training.LEARNING_RATES[index]) - 0.01 * np.log2(rank)

    found, measurements = judged(loss)
    assert found == "depends"
    equal, tuned = (
        the(measurements, "loss_gain", option="alpha/r", learning_rate=name).value
        for name in ("equal", "tuned")
    )
    assert equal < 0.005 < tuned
    best = [
        the(measurements, "best_learning_rate", option="alpha/r", rank=rank).value
        for rank in training.RANKS
    ]
    assert best == list(training.LEARNING_RATES[1:])


def test_the_best_rate_is_that_of_validation_text_whatever_held_out_text_says() -> None:
    found = dict(made_sweep(lambda option, rank, rate: off_best(rate, 1e-2)))
    lucky = [Outcome([9.0], [0.0] * 12, 1, 1, 1, 1.0)] * training.SEEDS
    found["alpha/r", 4, 3e-4] = lucky
    assert training.best_rate(found, "alpha/r", 4) == 1e-2


def test_what_diverged_is_left_out_unless_it_is_judged() -> None:
    top = training.LEARNING_RATES[-1]
    _, measurements = judged(lambda option, rank, rate: None if rate == top else rate)
    shown = {m.labels["rate"] for m in measurements if m.metric == "loss_at_rate"}
    assert shown == set(training.LEARNING_RATES[:-1])
    with pytest.raises(ValueError, match="diverged"):
        judged(lambda option, rank, rate: None if rate == training.EQUAL_RATE else rate)


def test_the_sweep_has_every_cell_with_the_same_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[FineTune] = []

    def kept(spec: FineTune, folder: Path) -> Outcome:
        assert folder == tmp_path
        asked.append(spec)
        return Outcome([1.0], [1.0], 1, 1, 1, 1.0)

    monkeypatch.setattr(training, "outcome_of", kept)
    found = training.sweep(tmp_path)
    assert len(asked) == len(set(asked)) == 200
    assert {len(outcomes) for outcomes in found.values()} == {5}
    assert sorted(training.LEARNING_RATES)[2] == training.EQUAL_RATE
