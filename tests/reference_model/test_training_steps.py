"""Steps of training: what they learn, at which rates, and which weights decay."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from reference_model.training import (
    Recipe,
    Training,
    learning_rate_factor,
    make_optimizers,
    mean_loss,
)
from tests.reference_model.counting import (
    RECIPE,
    VALIDATION,
    assert_same_weights,
    counting_batches,
    new_model,
    run,
)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_loss_of_a_learnable_text_goes_down(optimizer: str) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, steps=60, evaluate_every=20)
    model = new_model()
    before = mean_loss(model, VALIDATION)
    progress = run(model, recipe)
    assert before == pytest.approx(math.log(11), abs=0.1)
    assert progress.best_validation < 0.5 * before
    assert mean_loss(model, VALIDATION) == progress.best_validation
    assert progress.step == 60
    assert progress.tokens == 60 * 4 * 8


@pytest.mark.parametrize("position", ["learned", "rope", "alibi"])
def test_the_forward_pass_may_run_in_bfloat16(position: str) -> None:
    recipe = dataclasses.replace(RECIPE, precision="bfloat16")
    losses = []
    for precision in ("float32", "bfloat16"):
        model = new_model(position=position)
        recipe = dataclasses.replace(RECIPE, precision=precision)
        losses.append(run(model, recipe).curve[-1]["train"])
        assert model.wte.weight.dtype == torch.float32
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_the_learning_rate_rises_evenly_and_falls_evenly() -> None:
    recipe = Recipe(steps=10, learning_rate=1.0, warmup_steps=4)
    falling = [learning_rate_factor(step, recipe) for step in range(10)]
    assert falling == pytest.approx([1 / 4, 2 / 4, 3 / 4, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])
    assert learning_rate_factor(0, dataclasses.replace(recipe, warmup_steps=0)) == 1.0


@pytest.mark.parametrize(("decay", "last"), [(0, 1.0), (2, 0.5), (6, 1 / 6)])
def test_the_learning_rate_is_held_until_the_last_steps(decay: int, last: float) -> None:
    recipe = Recipe(steps=10, learning_rate=1.0, warmup_steps=4, decay_steps=decay)
    found = [learning_rate_factor(step, recipe) for step in range(10)]
    assert found[3 : 10 - decay + (decay > 0)] == [1.0] * (7 - decay + (decay > 0))
    assert found[-1] == pytest.approx(last)


def test_half_a_run_that_decays_is_a_run_of_half_as_many_steps() -> None:
    """Its copy decays; the run itself goes on as if there had been none."""
    whole = dataclasses.replace(RECIPE, steps=12, decay_steps=3)
    half = dataclasses.replace(whole, steps=6)
    apart, undisturbed = (Training(new_model(), counting_batches, r) for r in (half, whole))
    expected = [list(training.losses()) for training in (apart, undisturbed)]
    training = Training(new_model(), counting_batches, whole)
    found = list(training.losses(until=half.steps - 3))
    branch = copy.deepcopy(training)
    branch.recipe = half
    assert found + list(branch.losses()) == expected[0]
    assert found + list(training.losses()) == expected[1]
    assert_same_weights(branch.model, apart.model)
    assert_same_weights(training.model, undisturbed.model)
    assert (branch.step, training.step, branch.tokens) == (6, 12, apart.tokens)


def test_each_step_uses_the_learning_rate_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *arguments: object) -> object:
        used.append(self.param_groups[0]["lr"])
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(new_model(), dataclasses.replace(RECIPE, steps=4))
    expected = [1e-2 * learning_rate_factor(s, Recipe(4, 1e-2, warmup_steps=2)) for s in range(4)]
    assert used == pytest.approx(expected)


def test_gradients_are_clipped_to_the_norm_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *arguments: object) -> object:
        gradients = [p.grad.norm() for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.stack(gradients).norm()))
        return step(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(new_model(), dataclasses.replace(RECIPE, steps=3, gradient_clip=0.01))
    assert norms == pytest.approx([0.01] * 3, rel=1e-3)
    run(new_model(), dataclasses.replace(RECIPE, steps=3, gradient_clip=None))
    assert min(norms[3:]) > 0.1


# ---- weight decay


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_weight_decay_shrinks_matrices_and_spares_norms_and_biases(
    optimizer: str, head: str
) -> None:
    recipe = Recipe(
        steps=1,
        learning_rate=0.1,
        optimizer=optimizer,
        matrix_learning_rate=0.3,
        weight_decay=0.5,
    )
    model = new_model(head=head)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 2.0)
        parameter.grad = torch.zeros_like(parameter)  # what changes is decay alone
    for each in make_optimizers(model, recipe):
        each.step()
    for name, parameter in model.named_parameters():
        by_muon = optimizer == "muon" and name.startswith("h.")
        kept = 1 - (0.3 if by_muon else 0.1) * 0.5 if parameter.ndim == 2 else 1.0
        assert (parameter - 2.0 * kept).abs().max() < 1e-6, name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("head", ["tied", "untied"])
def test_each_parameter_has_one_optimizer(optimizer: str, head: str) -> None:
    model = new_model(head=head)
    owned = [
        id(parameter)
        for each in make_optimizers(model, dataclasses.replace(RECIPE, optimizer=optimizer))
        for group in each.param_groups
        for parameter in group["params"]
    ]
    assert sorted(owned) == sorted(id(parameter) for parameter in model.parameters())
