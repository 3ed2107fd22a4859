"""The INT8 experiments see a known damage, and refuse a comparison in which nothing was rounded."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.experiment import Settings
from benchmarks.experiments import int8
from benchmarks.experiments.int8 import loss_increase, norm_damage, norm_share, weights_quality
from benchmarks.instruments.perplexity import token_losses
from reference_model.checkpoints import REFERENCE_FOLDER, load_reference, reference_tokenizer
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
    monkeypatch.setattr(int8, "held_out_tokens", lambda profile: tokens)
    int8._baseline.cache_clear()
    yield
    int8._baseline.cache_clear()


def increase(model: GPT, rounded: tuple[GPT, list[str]], tokens: Tensor) -> float:
    losses = token_losses(model, tokens, WINDOW)
    return loss_increase(model, *rounded, tokens, losses, seed=0).value


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
    increases = {(m.claim, *m.parameters.values()): m for m in found if m.metric == "loss_increase"}
    assert set(increases) == {
        ("int8.weights-quality", "per channel"),
        ("int8.weights-quality", "per tensor"),
        ("int8.norm-damage", "gamma and beta per tensor"),
    }
    assert {m.n for m in found} == {3}
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
