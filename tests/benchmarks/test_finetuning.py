"""Fine-tunes: what decides them, and what a divergence leaves."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.instruments import finetuning
from benchmarks.instruments.finetuning import (
    ALL_LINEARS,
    WINDOW,
    FineTune,
    Outcome,
    adapted,
    adapter_training,
    at_constant_rate,
    spread_windows,
    state_bytes,
    topic_batches,
)
from reference_model.checkpoints import load_reference
from reference_model.config import preset
from reference_model.costs import lora_parameters, parameter_count
from reference_model.lora import LoRAConfig, adapter_parameters

SPEC = FineTune("lora", 4, 1e-3, 0, 2, 1, 2, 16, evaluation_windows=(1, 2))


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    return finetuning.run(SPEC)


def test_a_fine_tune_trains_the_adapters_alone_and_learns(outcome: Outcome) -> None:
    config = preset("reference")
    assert outcome.trained_parameters == lora_parameters(config, 4, ALL_LINEARS)
    assert outcome.frozen_parameters == parameter_count(config)
    before = finetuning._losses(adapted(LoRAConfig(4, targets=ALL_LINEARS), 0), (1, 2))
    assert outcome.validation_loss < before[0][0]
    assert [len(outcome.validation), len(outcome.held_out)] == [1, 2]


def test_the_optimiser_keeps_two_values_for_each_trained_weight(outcome: Outcome) -> None:
    tensors = len(adapter_parameters(adapted(LoRAConfig(4, targets=ALL_LINEARS), 0)))
    assert outcome.optimizer_bytes == 8 * outcome.trained_parameters + 4 * tensors  # and its step


def test_the_same_fine_tune_ends_the_same_and_another_seed_does_not(outcome: Outcome) -> None:
    assert finetuning.run(SPEC).held_out == outcome.held_out
    assert finetuning.run(replace(SPEC, seed=1)).held_out != outcome.held_out


def test_plain_sgd_keeps_nothing_between_steps() -> None:
    model = adapted(LoRAConfig(2), 0)
    recipe = at_constant_rate(0.1, steps=2)
    training = adapter_training(model, topic_batches(1, 8, 0), recipe, "sgd")
    assert len(list(training.losses())) == 2
    assert state_bytes(training) == 0


def test_a_step_of_every_fine_tune_is_timed() -> None:
    found = finetuning.step_seconds([SPEC, replace(SPEC, rank=8)])
    assert len(found) == 2
    assert min(found) > 0


def test_a_fine_tune_that_diverges_has_no_losses_and_is_nobodys_best() -> None:
    diverged = finetuning.run(replace(SPEC, learning_rate=math.inf))
    assert diverged.held_out == []
    assert diverged.validation_loss == math.inf


def test_windows_are_spread_over_the_whole_text() -> None:
    tokens = torch.arange(10 * WINDOW + 7)
    chosen = spread_windows(tokens, 3)
    assert chosen[:-1].view(3, WINDOW)[:, 0].tolist() == [0, 4 * WINDOW, 9 * WINDOW]
    assert len(spread_windows(tokens, 99)) == 10 * WINDOW + 1


def test_the_same_seed_draws_the_same_adapters_in_both_precisions() -> None:
    single, double = (
        adapter_parameters(adapted(LoRAConfig(2), 3, dtype))
        for dtype in (torch.float32, torch.float64)
    )
    assert all(torch.equal(a.double(), b) for a, b in zip(single, double, strict=True))
    assert load_reference().wte.weight.dtype == torch.float32
