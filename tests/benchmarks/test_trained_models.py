"""Models that are trained to be compared: what they share, and what a cell says of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.data.assets import play_texts
from benchmarks.experiments.experiment import Settings
from benchmarks.instruments import trained_models
from benchmarks.instruments.texts import encode
from benchmarks.instruments.trained_models import (
    BASELINE,
    OPTIONS,
    STEP_TOKENS,
    config_of,
    measure,
    smaller_tokenizer,
)
from benchmarks.subjects.built import Model
from benchmarks.training import loop_speed, plain_loop
from benchmarks.training.train_reference import train_tokenizer
from reference_model.checkpoints import reference_tokenizer
from reference_model.costs import parameter_count
from reference_model.errors import UserError
from reference_model.training import Training

HERE = Settings("full", "cpu", 0)
STEPS = 10  # of a whole run


@pytest.fixture(scope="module")
def text() -> str:
    return next(iter(play_texts("train").values()))[:40_000]


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Runs of ten steps on the start of a play, judged by eight windows."""
    tokens = encode(smaller_tokenizer(reference_tokenizer(), 1024), text)
    windows = trained_models.held_out()[np.arange(8)]
    for name, value in (
        ("HALF", STEPS // 2 * STEP_TOKENS),
        ("WHOLE", STEPS * STEP_TOKENS),
        ("_training_tokens", lambda: tokens),
        ("held_out", lambda: windows),
        ("unigram_entropy", lambda: 6.0),
        ("CURVE", 3),
    ):
        monkeypatch.setattr(trained_models, name, value)


def of(found: Any, steps: int) -> dict[str, Any]:
    return found["by_tokens"][str(steps * STEP_TOKENS)]


# ---- one run


def test_the_same_cell_finds_the_same_to_the_bit_and_another_seed_does_not(short: None) -> None:
    first, again, other = (
        measure(HERE, BASELINE, 4e-3, seed, trained_models.WHOLE) for seed in (1, 1, 2)
    )
    assert first == again
    assert of(first, STEPS) != of(other, STEPS)
    assert len(of(first, STEPS)["losses"]) == 8
    assert [tokens for tokens, _ in first["curve"]] == [3072, 6144, 9216]


def test_half_a_run_is_a_run_of_half_as_many_tokens(short: None) -> None:
    whole = measure(HERE, "rope", 4e-3, 1, trained_models.WHOLE, warmup=2)
    half = measure(HERE, "rope", 4e-3, 1, trained_models.HALF, warmup=2)
    assert list(half["by_tokens"]) == [str(trained_models.HALF)]
    assert of(half, STEPS // 2) == of(whole, STEPS // 2)
    assert of(half, STEPS // 2) != of(whole, STEPS)


def test_a_model_that_learns_no_more_than_single_tokens_has_stalled(short: None) -> None:
    found = of(measure(HERE, BASELINE, 0.0, 1, trained_models.HALF), STEPS // 2)
    assert found["outcome"] == "stalled"
    assert np.mean(found["losses"]) == pytest.approx(math.log(1024), abs=0.1)
    assert "is above" in found["reason"]


def test_a_model_that_diverges_says_where_and_has_no_losses(short: None) -> None:
    whole = measure(HERE, BASELINE, math.inf, 1, trained_models.WHOLE, warmup=0)
    for steps in (STEPS // 2, STEPS):
        found = of(whole, steps)
        assert found["outcome"] == "diverged"
        assert found["reason"] == "the loss became nan at step 1"
        assert found["losses"] == []


def test_a_model_that_has_learnt_is_told_as_trained(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_models, "unigram_entropy", lambda: 10.0)
    assert of(measure(HERE, BASELINE, 4e-3, 1, trained_models.HALF), STEPS // 2)["reason"] == ""


def test_a_model_is_read_again_with_its_positions_shuffled(
    short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trained_models, "unigram_entropy", lambda: 10.0)
    found = measure(HERE, BASELINE, 4e-3, 1, trained_models.WHOLE, warmup=2)
    assert len(found["shuffled"]) == 8
    assert found["shuffled"] != of(found, STEPS)["losses"]
    model = Model(config_of(BASELINE))
    model.initialize_by_name(0)
    kept = model.wpe.weight.detach().clone()
    trained_models.shuffled(model, seed=0)
    assert torch.equal(model.wpe.weight, kept)
    assert trained_models.shuffled(Model(config_of("rope")), seed=0) is None


def test_the_entropy_of_single_tokens_is_that_of_their_shares() -> None:
    _, counts = np.unique(trained_models.held_out().targets.numpy(), return_counts=True)
    shares = counts / counts.sum()
    assert trained_models.unigram_entropy() == pytest.approx(-(shares * np.log(shares)).sum())


# ---- what options share


@pytest.mark.parametrize("option", [*OPTIONS])
def test_an_option_begins_where_the_baseline_does(option: str) -> None:
    models = [Model(config_of(name)) for name in (BASELINE, option)]
    for model in models:
        model.initialize_by_name(3)
    plain, other = (dict(model.named_parameters()) for model in models)
    schemes = {config_of(name).initialization_in_force for name in (BASELINE, option)}
    assert torch.equal(plain["wte.weight"], other["wte.weight"])
    shared = [n for n in plain if n in other and plain[n].shape == other[n].shape]
    if len(schemes) == 1:
        assert all(torch.equal(plain[name], other[name]) for name in shared)


@pytest.mark.parametrize(
    ("option", "like"),
    [
        ("untied, equal parameters", BASELINE),
        ("one for four, equal parameters", "four heads"),
        ("swiglu for four", "four heads"),
    ],
)
def test_equal_parameters_are_equal_to_a_thousandth(option: str, like: str) -> None:
    counts = [parameter_count(config_of(name)) for name in (option, like)]
    assert counts[0] == pytest.approx(counts[1], rel=1e-3)


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(UserError, match="'best' is no option; use one of baseline, rope"):
        config_of("best")


# ---- vocabulary


def test_a_smaller_vocabulary_is_the_one_that_the_same_text_gives(text: str) -> None:
    found = smaller_tokenizer(train_tokenizer(text, 600), 400)
    expected = train_tokenizer(text, 400)
    assert found.get_vocab() == expected.get_vocab()
    assert found.encode(text).ids == expected.encode(text).ids
    assert found.decode(found.encode("Ho, ❦ there!").ids) == "Ho, ❦ there!"


# ---- the loop


def test_the_plain_loop_takes_the_very_steps_of_ours(short: None) -> None:
    recipe = trained_models.recipe_of(4, rate=4e-3, seed=1)
    models = [Model(config_of(BASELINE)) for _ in range(2)]
    for model in models:
        model.initialize_by_name(0)
    batches = trained_models.batches_of(1)
    ours = list(Training(models[0], batches, recipe).losses())
    assert list(plain_loop.losses(models[1], batches, recipe)) == ours
    weights = zip(models[0].parameters(), models[1].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)


def test_each_loop_is_timed_and_its_work_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_speed, "STEPS", 1)
    monkeypatch.setattr(loop_speed, "TURNS", 1)
    found = loop_speed.observed()
    assert found["tokens"] == STEP_TOKENS
    assert min(found.values()) > 0
    # Three passes of two FLOPs for each weight and token, attention and the table apart.
    weights = parameter_count(config_of(BASELINE)) - 128 * 128
    assert 6 * weights * STEP_TOKENS < found["flops"] < 7 * weights * STEP_TOKENS
