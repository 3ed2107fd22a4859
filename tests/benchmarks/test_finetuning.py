"""Fine-tunes that are kept: what decides them, what is read back, and what a divergence leaves."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.instruments import finetuning
from benchmarks.instruments.finetuning import (
    ALL_LINEARS,
    WINDOW,
    FineTune,
    Outcome,
    adapted,
    make_optimizer,
    optimizer_steps,
    outcome_of,
    spread_windows,
    state_bytes,
    topic_batches,
)
from reference_model.checkpoints import load_reference
from reference_model.config import preset
from reference_model.costs import lora_parameters, parameter_count
from reference_model.errors import UserError
from reference_model.lora import LoRAConfig, adapter_parameters

SPEC = FineTune("lora", 4, 1e-3, 0, 2, 1, 2, 16, evaluation_windows=(1, 2))
OUTCOME = Outcome([5.0, 6.0], [5.5], 10, 100, 80, 0.1)


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
    optimizer = make_optimizer(model, "sgd", 0.1)
    assert len(list(optimizer_steps(model, optimizer, topic_batches(1, 8, 0), 2))) == 2
    assert state_bytes(optimizer) == 0


def test_a_kept_fine_tune_is_not_run_again_and_another_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[FineTune] = []
    monkeypatch.setattr(finetuning, "run", lambda spec: ran.append(spec) or OUTCOME)
    other = replace(SPEC, learning_rate=2e-3)
    for spec in (SPEC, other, SPEC):
        assert outcome_of(spec, tmp_path) == OUTCOME
    assert ran == [SPEC, other]
    kept = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert kept["spec"]["rank"] == 4
    # The text belongs to it: what was measured on one is not taken for another's.
    monkeypatch.setattr(finetuning, "topics_digest", lambda: "of another Python")
    outcome_of(SPEC, tmp_path)
    assert ran == [SPEC, other, SPEC]


@pytest.mark.K6
@pytest.mark.parametrize("change", ["a digit", "half", "another file", "a folder"])
def test_a_kept_fine_tune_that_is_not_what_was_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(finetuning, "run", lambda spec: OUTCOME)
    outcome_of(SPEC, tmp_path)
    (path,) = tmp_path.iterdir()
    text = path.read_text()
    if change == "a folder":
        path.unlink()
        path.mkdir()
    else:
        at = text.index('"frozen_parameters": ') + 21
        digit = "1" if text[at] != "1" else "2"
        path.write_text(
            {
                "a digit": text[:at] + digit + text[at + 1 :],
                "half": text[: len(text) // 2],
                "another file": "[]",
            }[change]
        )
    with pytest.raises(UserError, match="holds no kept run"):
        outcome_of(SPEC, tmp_path)


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
