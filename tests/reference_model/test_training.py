"""Runs of training: when they stop, how they go on, and what they refuse."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from reference_model import training
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.training import (
    Progress,
    Recipe,
    batch_loss,
    mean_loss,
    train,
)
from tests.reference_model.counting import (
    CONFIG,
    RECIPE,
    VALIDATION,
    assert_same_weights,
    counting_batches,
    new_model,
    run,
)

# ---- stopping and going on


@pytest.mark.parametrize("stop_at", [2, 5, 9])
@pytest.mark.parametrize(
    ("optimizer", "precision"), [("adamw", "float32"), ("muon", "float32"), ("muon", "bfloat16")]
)
def test_a_resumed_run_ends_with_the_same_bits_as_one_that_was_never_stopped(
    optimizer: str, precision: str, stop_at: int, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, precision=precision)
    whole, stopped = new_model(dropout=0.1), new_model(dropout=0.1)
    expected = run(whole, recipe, tmp_path / "whole")
    assert run(stopped, recipe, tmp_path / "stopped", stop_at).step == stop_at
    torch.manual_seed(99)  # nothing may hang on where the random numbers stood
    resumed = GPT(CONFIG.replace(dropout=0.1))
    found = run(resumed, recipe, tmp_path / "stopped")
    assert found == expected
    assert len(found.curve) == 5
    assert_same_weights(resumed, whole)


def test_the_folder_of_a_run_changes_nothing_in_it(tmp_path: Path) -> None:
    with_folder, without = new_model(dropout=0.1), new_model(dropout=0.1)
    assert run(with_folder, RECIPE, tmp_path) == run(without, RECIPE)
    assert_same_weights(with_folder, without)
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_a_finished_run_takes_no_further_step_and_gives_its_best_weights(tmp_path: Path) -> None:
    model, again = new_model(), new_model()
    finished = run(model, RECIPE, tmp_path)
    assert list(train(again, counting_batches, VALIDATION, RECIPE, tmp_path)) == [finished]
    assert finished.step == RECIPE.steps
    assert_same_weights(again, model)


def test_training_stops_when_patience_ends_and_returns_the_best_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scripted = iter([3.0, 2.0, 2.5, 2.0, 2.4, 1.0])  # equal is not better
    monkeypatch.setattr(training, "mean_loss", lambda model, tokens: next(scripted))
    model = new_model()
    recipe = dataclasses.replace(RECIPE, steps=12, patience=3)
    after: dict[int, dict[str, Tensor]] = {}
    progress = Progress()
    for progress in train(model, counting_batches, VALIDATION, recipe):
        after[progress.step] = {name: t.clone() for name, t in model.state_dict().items()}
    assert progress.step == 10
    assert (progress.best_step, progress.best_validation) == (4, 2.0)
    assert [entry["validation"] for entry in progress.curve] == [3.0, 2.0, 2.5, 2.0, 2.4]
    assert [entry["step"] for entry in progress.curve] == [2, 4, 6, 8, 10]
    assert all(torch.equal(after[4][name], tensor) for name, tensor in model.state_dict().items())
    assert not torch.equal(after[4]["wte.weight"], after[10]["wte.weight"])


def test_the_last_step_is_evaluated_even_between_two_evaluations() -> None:
    progress = run(new_model(), dataclasses.replace(RECIPE, steps=5))
    assert [entry["step"] for entry in progress.curve] == [2, 4, 5]


# ---- refusals


def refusal(model: GPT, recipe: Recipe, folder: Path | None = None) -> str:
    with pytest.raises(UserError) as raised:
        run(model, recipe, folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def with_checksum(state: object) -> bytes:
    saved = io.BytesIO()
    torch.save(state, saved)
    return saved.getvalue() + hashlib.sha256(saved.getvalue()).digest()


def test_a_loss_that_is_no_number_ends_the_run_and_spares_its_state(tmp_path: Path) -> None:
    run(new_model(), RECIPE, tmp_path, stop_at=2)
    before = (tmp_path / "state.pt").read_bytes()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    state["model"]["wte.weight"].fill_(math.nan)
    broken = with_checksum(state)
    (tmp_path / "state.pt").write_bytes(broken)
    assert broken != before
    message = refusal(new_model(), RECIPE, tmp_path)
    assert message.startswith("the loss became nan at step 2; lower the learning rate")
    assert (tmp_path / "state.pt").read_bytes() == broken


@pytest.mark.K7
def test_a_validation_loss_that_is_no_number_ends_the_run_and_leaves_no_state(
    tmp_path: Path,
) -> None:
    # It would count as no improvement, stand in the curve, and the first weights be called best.
    recipe = dataclasses.replace(RECIPE, steps=1, warmup_steps=0, learning_rate=1e30)
    message = refusal(new_model(), recipe, tmp_path)
    assert message.startswith("the validation loss became nan at step 1; lower the learning rate")
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_is_no_number_does_not_reach_the_weights() -> None:
    model = new_model()
    nn.init.constant_(model.h[0].mlp.c_proj.bias, math.inf)
    before = model.wte.weight.clone()
    assert "the loss became nan at step 0" in refusal(model, RECIPE)
    assert torch.equal(model.wte.weight, before)


@pytest.mark.parametrize(
    ("model", "recipe", "told"),
    [
        ({}, {"learning_rate": 2e-2}, "learning_rate=0.01, received 0.02"),
        ({"n_embd": 32}, {}, "n_embd=16, received 32"),
        ({"dropout": 0.5}, {}, "dropout=0.0, received 0.5"),  # no weight has another shape
    ],
)
def test_the_state_of_another_run_is_refused(
    tmp_path: Path, model: dict[str, Any], recipe: dict[str, Any], told: str
) -> None:
    run(new_model(), RECIPE, tmp_path, stop_at=3)
    message = refusal(new_model(**model), dataclasses.replace(RECIPE, **recipe), tmp_path)
    assert "state.pt belongs to a run with " + told in message


def test_the_state_of_a_run_on_other_data_is_refused(tmp_path: Path) -> None:
    for _ in train(new_model(), counting_batches, VALIDATION, RECIPE, tmp_path, data="plays"):
        pass
    with pytest.raises(UserError, match="data='plays', received 'poems'"):
        next(train(new_model(), counting_batches, VALIDATION, RECIPE, tmp_path, data="poems"))


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_a_damaged_state_is_refused(tmp_path: Path, keep: int) -> None:
    run(new_model(), RECIPE, tmp_path, stop_at=3)
    whole = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(whole[:keep])
    assert "state.pt is not a whole training state" in refusal(new_model(), RECIPE, tmp_path)


@pytest.mark.K6
def test_a_state_with_one_flipped_bit_is_refused_wherever_it_is(tmp_path: Path) -> None:
    run(new_model(), RECIPE, tmp_path, stop_at=3)
    path = tmp_path / "state.pt"
    whole = path.read_bytes()
    places = random.Random(0).sample(range(8 * len(whole)), 149)
    for place in (0, 8 * len(whole) - 1, *places):
        flipped = bytearray(whole)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        assert "state.pt is not a whole training state" in refusal(new_model(), RECIPE, tmp_path)


@pytest.mark.K6
@pytest.mark.parametrize("missing", ["everything", "run", "model", "optimizers", "progress"])
def test_a_whole_file_that_lacks_something_is_refused(tmp_path: Path, missing: str) -> None:
    run(new_model(), RECIPE, tmp_path, stop_at=3)
    path = tmp_path / "state.pt"
    state = torch.load(path, weights_only=True)
    state.pop(missing, None)
    path.write_bytes(with_checksum([] if missing == "everything" else state))
    assert "state.pt is not a whole training state" in refusal(new_model(), RECIPE, tmp_path)


@pytest.mark.K6
@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["a folder", "a pipe"])
def test_what_is_no_file_is_no_state(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "state.pt")
    assert "state.pt is not a whole training state" in refusal(new_model(), RECIPE, tmp_path)


@pytest.mark.parametrize("field", ["optimizer", "precision"])
def test_an_unknown_choice_of_the_recipe_is_named(field: str) -> None:
    with pytest.raises(UserError, match=f"{field}='best' is not a known choice"):
        dataclasses.replace(RECIPE, **{field: "best"})


# ---- losses


def plain_loss(model: GPT, tokens: Tensor) -> float:
    """Mean over whole windows of −log softmax of the token that came, in float64."""
    window, losses = model.config.context_length, []
    for start in range(0, len(tokens) - window, window):
        with torch.no_grad():
            logits = model(tokens[None, start : start + window])[0].double()
        targets = tokens[start + 1 : start + window + 1]
        for row, target in zip(logits.tolist(), targets.tolist(), strict=True):
            losses.append(math.log(sum(map(math.exp, row))) - row[target])
    return sum(losses) / len(losses)


@pytest.mark.parametrize("length", [9, 16, 17, 60])
@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_the_mean_loss_equals_a_plain_loop(
    tiny_model: Callable[..., GPT], length: int, batch_size: int
) -> None:
    model = tiny_model(context_length=8)
    tokens = torch.randint(23, (length,), generator=torch.Generator().manual_seed(8))
    found = mean_loss(model, tokens, batch_size)
    assert found == pytest.approx(plain_loss(model, tokens), rel=1e-6)


def test_the_loss_of_a_batch_is_that_of_predicting_each_next_token() -> None:
    model, batch = new_model(), counting_batches(0)
    expected = sum(plain_loss(model, row) for row in batch) / len(batch)
    assert float(batch_loss(model, batch).detach()) == pytest.approx(expected, rel=1e-5)


def test_measuring_a_loss_leaves_dropout_out_and_then_on_again() -> None:
    model = new_model(dropout=0.5)
    model.train()
    assert mean_loss(model, VALIDATION) == mean_loss(model, VALIDATION)
    assert model.training
    model.eval()
    mean_loss(model, VALIDATION)
    assert not model.training


def test_a_text_shorter_than_one_window_has_no_loss() -> None:
    with pytest.raises(UserError, match="one window of 9 tokens, received 8"):
        mean_loss(new_model(), VALIDATION[:8])
