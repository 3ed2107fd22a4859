"""The INT8 experiments see a known damage, and refuse a comparison in which nothing was rounded."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.experiments.experiment import Settings
from benchmarks.experiments.int8 import lesson as int8
from benchmarks.experiments.int8.lesson import (
    loss_increase,
    norm_damage,
    norm_share,
    weights_quality,
)
from benchmarks.instruments.perplexity import token_losses
from benchmarks.instruments.windows import windows_of
from benchmarks.judging.claims import load_claims
from benchmarks.judging.verdicts import judge_claim
from benchmarks.subjects.outliers import model_with_outliers
from reference_model.checkpoints import REFERENCE_FOLDER, load_reference, reference_tokenizer
from reference_model.config import preset
from reference_model.errors import UserError
from reference_model.model import GPT
from reference_model.quantization.grid import Grid
from reference_model.quantization.rounding import with_rounded_linears, with_rounded_norms

SETTINGS = Settings("smoke", "cpu", 0)
WINDOW = 512


@pytest.fixture
def tokens() -> Tensor:
    """Three windows of the text that ships with the checkpoint, and the last target."""
    whole = load_file(REFERENCE_FOLDER / "test_slice.safetensors")["tokens"]
    return whole[: 3 * WINDOW + 1].long()


@pytest.fixture
def model() -> GPT:
    return load_reference()


@pytest.fixture
def read_the_slice_only(tokens: Tensor, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # Twelve short windows, each a text of its own, so that each is one observation.
    texts = [tokens[at : at + 129] for at in range(0, 3 * WINDOW, 128)]
    monkeypatch.setattr(int8, "held_out_windows", lambda settings: windows_of(texts, 128))
    int8._baseline.cache_clear()
    yield
    int8._baseline.cache_clear()


def increase(model: GPT, rounded: tuple[GPT, list[str]], tokens: Tensor) -> float:
    windows = windows_of([tokens[: WINDOW + 1], tokens[WINDOW:]], WINDOW)
    return loss_increase(model, *rounded, windows, token_losses(model, windows)).value


def test_the_norms_hold_38400_of_the_parameters_of_gpt2() -> None:
    found = {m.metric: m.value for m in norm_share(SETTINGS) if m.parameters["model"] == "gpt2"}
    assert found["norm_parameters"] == 38_400
    assert found["parameters"] == 124_439_808
    assert found["norm_share"] == pytest.approx(0.0308583, abs=1e-7)


def test_an_outlier_costs_dearly_per_tensor_and_next_to_nothing_per_channel(
    model: GPT, tokens: Tensor
) -> None:
    with torch.no_grad():
        for block in model.h:
            block.mlp.c_fc.weight[0] *= 100  # more would spoil the model before any rounding
    per_tensor = increase(
        model, with_rounded_linears(model, Grid(granularity="per tensor")), tokens
    )
    per_channel = increase(model, with_rounded_linears(model, Grid()), tokens)
    assert per_tensor > 0.05
    assert abs(per_channel) < 0.01


def test_an_outlier_in_gamma_is_seen_when_norms_are_rounded(model: GPT, tokens: Tensor) -> None:
    intact = increase(model, with_rounded_norms(model), tokens)
    with torch.no_grad():
        for block in model.h:
            block.ln_2.weight[0] = 300.0
            block.mlp.c_fc.weight[:, 0] /= 300.0  # what comes out of both stays of one size
    spoilt = increase(model, with_rounded_norms(model), tokens)
    assert abs(intact) < 0.01
    assert spoilt > 0.05


def test_rounding_that_changes_nothing_is_an_error(model: GPT, tokens: Tensor) -> None:
    rounded, names = with_rounded_linears(model, Grid())
    again = with_rounded_norms(rounded)
    with pytest.raises(ValueError, match="changed"):
        increase(rounded, (rounded, names), tokens)
    with pytest.raises(ValueError, match="changed"):
        increase(model, again, tokens)  # says norms, but the linears were rounded too


@pytest.mark.usefixtures("read_the_slice_only")
def test_both_claims_are_measured_on_the_same_windows(tokens: Tensor) -> None:
    found = weights_quality(SETTINGS) + norm_damage(SETTINGS)
    increases = {
        (m.claim, m.parameters.get("granularity") or m.parameters["way"]): m
        for m in found
        if m.metric == "loss_increase" and m.parameters.get("model") != "planted outliers"
    }
    assert set(increases) == {
        ("int8.weights-quality", "per channel"),
        ("int8.weights-quality", "per tensor"),
        *(("int8.norm-damage", way) for way in int8.WAYS),
        ("int8.norm-damage", "integer statistics, 1 fractional bits"),
    }
    assert {m.n for m in found} == {12}
    assert all(abs(m.value) < 0.05 for m in increases.values())


@pytest.mark.usefixtures("read_the_slice_only")
def test_loss_perplexity_and_bits_per_byte_are_one_number_in_three_units(tokens: Tensor) -> None:
    found = {m.metric: m for m in weights_quality(SETTINGS) if m.option == "float32"}
    loss = found["held_out_loss"].value
    assert found["perplexity"].value == pytest.approx(math.exp(loss))
    text_bytes = len(reference_tokenizer().decode(tokens[1:].tolist()).encode())
    bits = loss * 3 * WINDOW / math.log(2) / text_bytes
    assert found["bits_per_byte"].value == pytest.approx(bits)
    assert 1.5 < bits < 3  # a model that has read no text needs 8, and none this small needs 1


# ---- norms, one way at a time


@pytest.mark.usefixtures("read_the_slice_only")
def test_each_way_to_quantise_a_norm_has_a_verdict_and_the_known_answers_come_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8, "COARSE", 0)  # so few windows do not show the harm of one bit
    found = norm_damage(SETTINGS)
    claim = next(claim for claim in load_claims() if claim.id == "int8.norm-damage")
    judged, parts = judge_claim(claim, found)
    instruments = [
        part.verdict
        for requirement, part in zip(claim.requirements, parts, strict=True)
        if requirement.role == "instrument"
    ]
    assert instruments == ["confirmed", "confirmed"]
    assert judged.verdict == "refuted"
    by_labels = {(m.parameters["way"], m.parameters["model"]): m.value for m in found}
    # What is planted behind a norm is nothing to its statistics: the known absence.
    of_integers = [v for (way, _), v in by_labels.items() if way == "integer statistics"]
    assert of_integers[0] == pytest.approx(of_integers[1], abs=1e-5)


def test_planted_outliers_change_no_output(model: GPT, tokens: Tensor) -> None:
    exact = model.double()
    planted = model_with_outliers(exact, (0, 5), 50.0)
    text = tokens[:64][None]
    with torch.inference_mode():
        assert (planted(text) - exact(text)).abs().max() < 1e-10
    assert not torch.equal(planted.h[2].ln_2.weight, exact.h[2].ln_2.weight)


def test_outliers_are_planted_in_pre_norm_models_only() -> None:
    with pytest.raises(UserError, match="norm_placement='post': use 'pre'"):
        model_with_outliers(GPT(preset("toy", norm_placement="post")), (0,), 2.0)


@pytest.mark.usefixtures("read_the_slice_only")
def test_fewer_bits_lose_more_and_real_int8_about_what_rounding_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(int8, "kinds_of_weights", lambda settings: ())  # has a test of its own
    full = Settings("full", "cpu", 0)
    cells = [each.parameters for each in weights_quality.cells(full)]
    assert cells == [{"variant": name} for name in int8.weights_variants(full)]
    found = weights_quality(full)
    others = {
        (m.parameters["bits"], m.parameters["granularity"], m.parameters["zero"]): m.value
        for m in found
        if m.metric == "loss_increase_of_other_grids"
    }
    assert others[4, "per channel", "symmetric"] > others[4, "per group", "symmetric"] > 0.003
    assert abs(others[8, "per group", "symmetric"]) < 0.003
    real = [m for m in found if m.metric == "loss_increase_w8a8"]
    assert {m.parameters["product"] for m in real} >= {"int_mm"}
    assert all(abs(m.value) < 0.01 for m in real)
