"""Moments of adapters along fine-tunes, and verdicts on made-up ones of a known exponent."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.lora import training
from benchmarks.instruments.finetuning import adapted
from benchmarks.judging.claims import load_claims
from benchmarks.judging.stats import unweighted_slopes
from benchmarks.judging.verdicts import judge_claim
from benchmarks.record.results import Measurement
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
